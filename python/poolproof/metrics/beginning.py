"""Being told when a process opens its first connection, or tries to.

It is then that a process is one that works: a child of a fork begins nothing in the
fork's hook, where a thread could be started before its surroundings are in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import event

from poolproof._log import Log
from poolproof.drivers.interruption import is_interruption
from poolproof.pool.pool import Pool
from poolproof.pool.took import listeners

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolproof.pool.took import Took

__all__ = ["at_connects", "no_more"]

_log = Log("poolproof.metrics")
_told: dict[Callable[[], None], None] = {}


def at_connects(begin: Callable[[], None]) -> None:
    """Call a function at every connecting of this process and its children.

    Args:
        begin: Cheap where there is nothing to begin. What it raises is logged.
    """
    _told[begin] = None
    if not event.contains(Pool, "connect", _on_connect):
        event.listen(Pool, "connect", _on_connect)
        listeners.add(_on_took)


def no_more(begin: Callable[[], None]) -> None:
    """Call it no more.

    Args:
        begin: The function.
    """
    _told.pop(begin, None)


def _on_connect(_connection: object, _record: object) -> None:
    for begin in list(_told):
        try:
            begin()
        except Exception as error:
            if is_interruption(error):
                raise
            # No checkout fails for it.
            _log.exception("metrics could not be begun")


def _on_took(took: Took) -> None:
    # A server that is away when the process begins is what metrics are looked at for.
    if took.what == "connect" and took.error is not None:
        _on_connect(None, None)
