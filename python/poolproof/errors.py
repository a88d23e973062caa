"""What the pool raises.

    sqlalchemy.exc.OperationalError
     └─ ConnectionForked      a connection of the parent was used in a child
    sqlalchemy.exc.TimeoutError
     └─ PoolTimeout           no slot became free in time

All of them survive pickling, as Celery and multiprocessing need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import exc

if TYPE_CHECKING:
    from poolproof.stats import Holder

__all__ = ["ConnectionForked", "PoolTimeout"]


class ConnectionForked(exc.DontWrapMixin, exc.OperationalError):
    """A connection that was opened before a fork was used in the child.

    The parent's session is unharmed and nothing was sent. A new checkout on the same
    engine works: roll the session back (or remove it), then go on.

    Attributes:
        parent_pid: The process that opened the connection.
        child_pid: The process that used it.
    """

    __module__ = "poolproof"

    def __init__(self, parent_pid: int, child_pid: int) -> None:
        """Make the error.

        Args:
            parent_pid: Process that opened the connection.
            child_pid: Process that used it.
        """
        self.parent_pid = parent_pid
        self.child_pid = child_pid
        text = (
            f"this connection was opened by process {parent_pid} and is used in "
            f"process {child_pid}, which was forked from it; nothing was sent. Roll "
            "back or close the session (or connection) here and check out a new one: "
            "the same engine gives this process connections of its own"
        )
        super().__init__(
            None,
            None,
            ConnectionAbortedError(text),
            connection_invalidated=True,
        )

    def __reduce__(self) -> tuple[type[ConnectionForked], tuple[int, int]]:
        """Pickle by the two process ids."""
        return type(self), (self.parent_pid, self.child_pid)

    def __str__(self) -> str:
        """The sentence alone, without the driver prefix and the background link."""
        return str(self.orig)


class PoolTimeout(exc.TimeoutError):
    """No slot of the pool became free in time.

    Attributes:
        pool: The pool's name.
        size: Connections kept (`pool_size`); 0 is without bound.
        max_overflow: Connections allowed beyond `size`; -1 is without bound.
        in_use: Slots lent when the wait ended.
        waiting: Other callers still waiting then.
        waited: How long this caller waited, in seconds.
        holders: Who has held a slot longest, longest first, at most five.
    """

    __module__ = "poolproof"

    def __init__(
        self,
        pool: str,
        size: int,
        max_overflow: int,
        in_use: int,
        waiting: int,
        waited: float,
        holders: tuple[Holder, ...] = (),
    ) -> None:
        """Make the error; the arguments are its attributes."""
        self.pool = pool
        self.size = size
        self.max_overflow = max_overflow
        self.in_use = in_use
        self.waiting = waiting
        self.waited = waited
        self.holders = holders
        super().__init__(self._text(), code="3o7r")

    def _text(self) -> str:
        held = "; ".join(str(holder) for holder in self.holders) or "nobody"
        return (
            f"pool {self.pool!r} gave no connection within {self.waited:.2f} s: "
            f"size {self.size}, overflow {self.max_overflow}, {self.in_use} in use, "
            f"{self.waiting} more waiting. Held longest by: {held}. "
            "Return connections sooner, or raise pool_size or max_overflow"
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by the attributes."""
        return type(self), (
            self.pool,
            self.size,
            self.max_overflow,
            self.in_use,
            self.waiting,
            self.waited,
            self.holders,
        )
