"""The entry of an `AsyncPool`: its connection belongs to a loop."""

from __future__ import annotations

import inspect
import traceback
import weakref
from typing import TYPE_CHECKING, Any

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

__all__ = ["Loan", "LoopEntry"]

_DEPTH = 16
_AWAITS = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


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


class Loan(weakref.ref[Any]):
    """What an entry knows its borrower by; tells the pool when that is collected."""

    __slots__ = ("_places", "entry")

    entry: LoopEntry
    _places: list[tuple[CodeType, int]]

    def remember(self, entry: LoopEntry) -> None:
        """Remember who has checked it out: the coroutines around the greenlet.

        The code of each frame and a place in it, never a frame: that would keep the
        caller's variables alive, and what was lost among them.

        Args:
            entry: What was lent.
        """
        self.entry = entry
        places: list[tuple[CodeType, int]] = []
        self._places = places
        parent = None if getcurrent is None else getcurrent().parent
        frame = None if parent is None else parent.gr_frame
        while frame is not None and len(places) < _DEPTH:
            code = frame.f_code
            if not code.co_flags & _AWAITS:
                break  # the loop's own
            places.append((code, frame.f_lasti))
            frame = frame.f_back

    def describe(self) -> str:
        """Say where it was checked out, in the words of a traceback."""
        stack = traceback.StackSummary.from_list(
            (code.co_filename, line_of(code, at), code.co_name, None)
            for code, at in reversed(self._places)
        )
        return "".join(stack.format())
