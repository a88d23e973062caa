"""How a greenlet waits for a connection's socket without stopping its thread."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

from poolproof._cooperative import locks_are_replaced

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    # Given the descriptor, whether to wait for room to write too, and how long, in
    # seconds; says whether it is ready.
    Waiter: TypeAlias = Callable[[int, bool, float | None], bool]

__all__ = ["waiter"]


def waiter() -> Waiter | None:
    """Return what waits in place of the bridge where gevent or eventlet is at work.

    Returns:
        A function for the bridge; None where it waits by itself, which is quicker.
    """
    return _wait if locks_are_replaced() else None


def _wait(descriptor: int, for_writing: bool, timeout_s: float | None) -> bool:
    # Theirs by now: they have replaced it together with the locks.
    watched = [descriptor]
    reading, writing = ([], watched) if for_writing else (watched, [])
    return any(select.select(reading, writing, [], timeout_s))
