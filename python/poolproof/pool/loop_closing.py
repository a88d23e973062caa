"""Closing a connection of asyncio where it may be closed: in its loop, and at once.

Nothing here is waited for. In its own loop a connection is closed in one step; another
loop that runs is asked to do it; one that does not run, or was closed, cannot, and then
what is left is the socket. What takes longer, having the server end a statement that
was cancelled, is a task of the loop's, bounded by the watchdog as well.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from poolproof import _native
from poolproof.drivers.aside import look_after
from poolproof.fork import sockets
from poolproof.pool.loops import is_alive, running_loop

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from poolproof.drivers.base import AtLoop, Driver

__all__ = ["close", "in_loop"]

# The loops hold their tasks weakly.
_tasks: set[asyncio.Task[Any]] = set()


def in_loop(
    loop: asyncio.AbstractEventLoop,
    work: Callable[[], Any],
    *,
    to_its_end: bool = True,
) -> bool:
    """Have something done in a loop: at once where it is the running one.

    Args:
        loop: A loop.
        work: Does it; returns a coroutine that is to go on as a task, or None.
        to_its_end: Whether the loop's own end waits for that task.

    Returns:
        Whether it has been done, or will be when the loop comes to it.
    """

    def begin() -> None:
        rest = work()
        if rest is not None:
            task = loop.create_task(rest)
            if to_its_end:
                look_after(task)
            else:
                _tasks.add(task)
                task.add_done_callback(_tasks.discard)

    if loop is running_loop():
        begin()
        return True
    if not is_alive(loop):
        return False
    try:
        loop.call_soon_threadsafe(begin)
    except RuntimeError:  # it was closed meanwhile
        return False
    return True


def close(
    connection: Any,
    driver: Driver,
    loop: asyncio.AbstractEventLoop | None,
    seconds: float | None,
    closed: Callable[[], None] | None = None,
) -> None:
    """Close a connection, wherever the caller is.

    Args:
        connection: SQLAlchemy's adapter.
        driver: Its driver.
        loop: The loop that it belongs to.
        seconds: How long the loop may take for it; then its socket is shut. None sets
            no bound.
        closed: Called when it is closed.
    """
    socket = sockets.find(connection)
    if socket is not None and seconds is not None:
        socket.arm(_native.CALL, seconds)

    def here() -> Any:
        unfinished = driver.at_loop(connection)
        if unfinished is not None:
            return _close_in_time(connection, unfinished, closed)
        _close_at_once(connection, driver.abandon, closed)
        return None

    if loop is None or not in_loop(loop, here):
        if loop is not None and not loop.is_closed():
            # It stands still: nobody is in the middle of what is done here.
            _close_at_once(connection, driver.abandon, closed)
        else:
            sockets.end_session(connection)
            _close_at_once(connection, driver.drop, closed)


def _close_at_once(
    connection: Any, end: Callable[[Any], None], closed: Callable[[], None] | None
) -> None:
    try:
        # A driver's own error on the way out says nothing: it is closed in any case.
        with contextlib.suppress(Exception):
            end(connection)
    finally:
        _shut(connection, closed)


async def _close_in_time(
    connection: Any, unfinished: AtLoop, closed: Callable[[], None] | None
) -> None:
    try:
        await unfinished(connection)
    finally:
        _shut(connection, closed)


def _shut(connection: Any, closed: Callable[[], None] | None) -> None:
    """End the registration; the loop closes the number itself, before long."""
    sockets.unwatch(connection)
    if closed is not None:
        closed()
