"""The mutex of a pool's first connect, where tasks of several loops may want it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolproof import _native
from poolproof.pool.loops import TaskWaiters

if TYPE_CHECKING:
    from poolproof._native import Ticket

__all__ = ["FirstConnect"]


class FirstConnect:
    """The mutex of a pool's first connect, for the tasks of several loops.

    SQLAlchemy's own is one of asyncio's, which knows one loop.
    """

    __slots__ = ("_gate", "_ticket", "_waiters")

    def __init__(self) -> None:
        """Make one that is free."""
        self._gate = _native.Gate(kept=None, total=1, lifo=False)
        self._waiters = TaskWaiters()
        self._ticket: Ticket | None = None

    def locked(self) -> bool:
        """Tell whether it is held."""
        return self._ticket is not None

    def __enter__(self) -> None:
        """Wait for it."""
        self._ticket = self._waiters.wait(self._gate, None)

    def __exit__(self, *_error: object) -> None:
        """Let the next one have it."""
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            self._waiters.wake(ticket.vacate())
