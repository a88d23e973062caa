"""Work at a loop that nobody waits for: it comes to its end, also where the loop does.

`asyncio.run` cancels what is left in its loop, and closes the loop when that has gone.
The server would then not be told of a statement that was cancelled a moment before. So
such work is hidden from whoever asks for all tasks, and is waited for where a loop ends
what it has begun: when it closes its asynchronous generators, of which it is one.
"""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import tasks as tasks_of_asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["look_after"]

# How long a loop's end waits, in seconds: longer than the work's own bound.
_LONGEST_S = 4.0

# What goes on in each loop, which itself holds its tasks weakly; until nothing does.
_asides: dict[asyncio.AbstractEventLoop, _Aside] = {}
# Asyncio's documentation has it for tasks that others have made.
_hide: Any = getattr(tasks_of_asyncio, "_unregister_task", None)


def look_after(task: asyncio.Task[Any]) -> None:
    """Have a task of the running loop come to its end.

    Args:
        task: One whose work is bounded.
    """
    if task.done():
        return
    loop = task.get_loop()
    aside = _asides.get(loop)
    if aside is None:
        aside = _asides[loop] = _Aside()
    aside.tasks.add(task)
    task.add_done_callback(_ended)
    if _hide is not None:
        _hide(task)
    # Where the loop is closed without a word, none of this is the application's.
    task._log_destroy_pending = False  # type: ignore[attr-defined]


def _ended(task: asyncio.Task[Any]) -> None:
    loop = task.get_loop()
    aside = _asides.get(loop)
    if aside is None:
        return
    aside.tasks.discard(task)
    if not aside.tasks:
        _asides.pop(loop, None)
        aside.end()


class _Aside:
    """What goes on beside everything else in one loop.

    Attributes:
        tasks: What is not done.
    """

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()
        self._generator: Any = self._until_the_loop_ends()
        _step(self._generator.__anext__())

    async def _until_the_loop_ends(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            if self.tasks:
                await asyncio.wait(set(self.tasks), timeout=_LONGEST_S)

    def end(self) -> None:
        """Have the loop know of it no more."""
        # It waits for nothing now, unless the loop itself is closing it.
        with contextlib.suppress(RuntimeError):
            _step(self._generator.aclose())


def _step(awaitable: Any) -> None:
    """Run what waits for nothing."""
    with contextlib.suppress(StopIteration):
        awaitable.send(None)
