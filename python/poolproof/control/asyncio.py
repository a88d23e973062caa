"""The answers of the control plane, for tasks of asyncio.

A task that waits has no thread. The control plane puts the number of what it has
answered into its news, and the notifier wakes the loop of whoever asked. However many
tasks wait, there is one notifier in a process.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from poolproof.control import notifier

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["answered", "post"]

# Without a notifier (no thread is to be had, the interpreter ends) a task looks itself.
_POLL_S = 0.05


class _Call:
    """What wakes one waiting task, from another thread."""

    def __init__(self) -> None:
        """Make one for the task that runs."""
        self._loop = asyncio.get_running_loop()
        self.heard: asyncio.Future[None] = self._loop.create_future()

    def tell(self) -> None:
        """Wake the task. For the notifier."""
        post(self._loop, self._hear)

    def _hear(self) -> None:
        if not self.heard.done():
            self.heard.set_result(None)


def post(loop: asyncio.AbstractEventLoop, what: Callable[[], None]) -> bool:
    """Have a loop do something, from another thread.

    Args:
        loop: The loop.
        what: Called there, without arguments.

    Returns:
        False when the loop has closed: nobody is left who could wait for it.
    """
    try:
        loop.call_soon_threadsafe(what)
    except RuntimeError:
        if not loop.is_closed():
            raise
        return False
    return True


async def answered(
    announce: Callable[[], int],
    wait: Callable[[float], bool],
    seconds: float | None = None,
) -> bool:
    """Wait for the control plane, as `control.finish` does, without stopping the loop.

    Args:
        announce: Asks for news of the answer; returns the number they will bear.
        wait: The waiting method of the same thing.
        seconds: How long at most; None is without bound.

    Returns:
        Whether it came to an end.
    """
    until = None if seconds is None else time.monotonic() + seconds
    call = _Call()
    number = announce()
    is_told = notifier.watch(number, call)
    try:
        # An answer that came before there was a watch is not told.
        while not wait(0.0):
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return False
            if not is_told:
                left = _POLL_S if left is None else min(left, _POLL_S)
            # Not `wait_for`: before Python 3.12 it may swallow a cancellation.
            await asyncio.wait((call.heard,), timeout=left)
    finally:
        notifier.unwatch(number)
    return True
