"""Who is told how long a wait for a slot, or connecting, took: nobody, as a rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from poolproof._log import Log
from poolproof.drivers.interruption import is_interruption
from poolproof.faults.listeners import Listeners

if TYPE_CHECKING:
    from poolproof.pool.owner import Owner

__all__ = ["Took", "listeners", "tell"]

_log = Log("poolproof.metrics")


class Took(NamedTuple):
    """Something of a checkout that has just ended, in the thread that did it.

    Attributes:
        pool: The pool.
        what: Waiting for a slot, or connecting.
        seconds: How long it took.
        error: What it ended with, if not well.
    """

    pool: Owner
    what: Literal["wait", "connect"]
    seconds: float
    error: BaseException | None


listeners: Listeners[Took] = Listeners("took")


def tell(
    pool: Owner,
    what: Literal["wait", "connect"],
    seconds: float,
    error: BaseException | None = None,
) -> None:
    """Tell them all; what one raises is logged.

    Args:
        pool: The pool.
        what: Waiting for a slot, or connecting.
        seconds: How long it took.
        error: What it ended with, if not well.
    """
    for listener in listeners:
        try:
            listener(Took(pool, what, seconds, error))
        except Exception as own:
            if is_interruption(own):
                raise
            # No checkout fails for it.
            _log.exception("a listener failed that is told how long a checkout takes")
