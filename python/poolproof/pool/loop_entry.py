"""The entry of an `AsyncPool`: its connection belongs to a loop."""

from __future__ import annotations

import traceback
import weakref
from typing import TYPE_CHECKING, Any

from poolproof._native import awaiting
from poolproof.pool.code_places import line_of
from poolproof.pool.entry import Entry
from poolproof.pool.loops import running_loop

try:
    from greenlet import getcurrent  # type: ignore[import-untyped]
except ImportError:  # SQLAlchemy says what is missing, at the first use
    getcurrent = None

if TYPE_CHECKING:
    import asyncio
    from types import CodeType

    from poolproof.pool.owner import Owner

__all__ = ["RETURNED", "Loan", "LoopEntry", "checkout_places"]

_DEPTH = 16


class LoopEntry(Entry):
    """A place in an `AsyncPool`.

    Attributes:
        loop: The loop that its connection belongs to.
    """

    __slots__ = ("loop",)

    loop: asyncio.AbstractEventLoop | None

    def __init__(self, owner: Owner, began: float, due: float | None) -> None:
        """Make an entry that has no connection yet.

        Args:
            owner: The pool.
            began: When the checkout began, on the monotonic clock.
            due: When the connection must be there, on the monotonic clock.
        """
        self.loop = None
        super().__init__(owner, began, due)

    def sever(self) -> None:
        """Have the server learn that the session has ended, and send nothing.

        Not while the driver has the server end a cancelled statement: it closes then.
        """
        if (
            self.loop is None
            or self.loop is not running_loop()
            or self.driver.at_loop(self.dbapi_connection) is None
        ):
            super().sever()


def checkout_places() -> list[CodeType | int]:
    """Say who checks out: the coroutines around the greenlet.

    Returns:
        By turns a code and a place in it, the innermost first.
    """
    parent = None if getcurrent is None else getcurrent().parent
    frame = None if parent is None else parent.gr_frame
    return [] if frame is None else awaiting(frame, _DEPTH)


class Loan(weakref.ref[Any]):
    """What an entry knows its borrower by; tells the pool when that is collected.

    It has the method of SQLAlchemy's finalizer, whose place it takes.

    Attributes:
        entry: What was lent.
        places: Where it was checked out, as `checkout_places` says it.
        task: Who checked it out; None where no task did.
    """

    __slots__ = ("entry", "places", "task")

    entry: LoopEntry
    places: list[CodeType | int]
    # Weakly: a task has the frames in which what was lent stands.
    task: weakref.ref[asyncio.Task[Any]] | None

    # Itself, not what it refers to: that may have gone before it was asked for.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def detach(self) -> None:
        """Do nothing: the entry tells whether it is still lent."""

    def borrower(self) -> str | None:
        """Name the task; None where no task has checked it out."""
        if self.task is None:
            return None
        task = self.task()
        if task is None:
            return "an ended task"
        return f"{'ended ' if task.done() else ''}task {task.get_name()}"

    def describe(self) -> str:
        """Say where it was checked out, in the words of a traceback."""
        codes: list[Any] = self.places[::2]
        at: list[Any] = self.places[1::2]
        stack = traceback.StackSummary.from_list(
            (code.co_filename, line_of(code, place), code.co_name, None)
            for code, place in zip(reversed(codes), reversed(at), strict=True)
        )
        return "".join(stack.format())


class _Returned:
    """The finalizer of a borrower's object that has been given back."""

    __slots__ = ()

    def detach(self) -> None:
        """Do nothing."""


RETURNED = _Returned()
