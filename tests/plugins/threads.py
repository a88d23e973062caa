"""Threads of a test: their outcomes, who waits, and whether the pool is whole after.

Nothing here needs pytest, so that scripts in processes of their own start quickly.
"""

from __future__ import annotations

import gc
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.pool import QueuePool

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.pool import PoolProxiedConnection

    from plugins.dbapi import StubDBAPI

T = TypeVar("T")

PATIENCE = 60.0  # seconds that a thread of a test may take on a busy machine


class Task(threading.Thread):
    """A thread whose outcome is asked for: ``result()`` returns or raises it."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        super().__init__(daemon=True)
        self._function = function
        self._arguments = arguments
        self._result: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Call the function; keep what comes out."""
        try:
            self._result = self._function(*self._arguments)
        except BaseException as error:
            self._error = error
        finally:
            del self._function, self._arguments

    def result(self, seconds: float = PATIENCE) -> Any:
        """Return what the function returned, or raise what it raised."""
        self.join(seconds)
        assert not self.is_alive(), f"the thread still runs after {seconds} s"
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        result, self._result = self._result, None
        return result


def waiting(pool: Any) -> int:
    """Return how many threads wait in the pool for a connection."""
    if isinstance(pool, QueuePool):
        return len(pool._pool.not_empty._waiters)  # type: ignore[attr-defined]
    return int(pool.stats().waiting)


def wait_for_waiters(pool: Any, count: int) -> None:
    """Return when exactly *count* threads wait in the pool."""
    eventually(lambda: waiting(pool) == count, what=f"{count} waiting threads")


def wait_until_none_is_out(pool: Any) -> None:
    """Return when nobody has a connection; the keeper may have one for a moment."""
    eventually(lambda: pool.checkedout() == 0, what="the return of every connection")


def assert_whole(pool: Any, dbapi: StubDBAPI, capacity: int) -> None:
    """Assert that nothing is out and that the full capacity can be taken.

    Args:
        pool: The pool, with nobody using it.
        dbapi: Its scripted driver; the script is cleared.
        capacity: The size and the overflow together.
    """
    dbapi.script.clear()
    gc.collect()
    wait_until_none_is_out(pool)
    tasks = [Task(pool.connect) for _ in range(capacity)]
    taken: list[PoolProxiedConnection] = [task.result() for task in tasks]
    assert pool.checkedout() == capacity, pool.status()
    assert len({id(one.dbapi_connection) for one in taken}) == capacity
    for one in taken:
        one.close()
    wait_until_none_is_out(pool)
    assert pool.checkedin() <= max(pool.size(), capacity if not pool.size() else 0)


def eventually(
    condition: Callable[[], T], *, seconds: float = PATIENCE, what: str = ""
) -> T:
    """Wait until *condition* is true, looking every millisecond, later less often.

    To look often at what takes long costs the processor time that it waits for: each
    pause is at most a twentieth of what has been waited, and 20 ms.

    Args:
        condition: Looked at until it is true.
        seconds: After so long the test fails.
        what: What is waited for, for the failure's message.

    Returns:
        What the condition was then.
    """
    started = time.monotonic()
    while not (seen := condition()):
        waited = time.monotonic() - started
        if waited > seconds:
            message = f"did not happen within {seconds} s: {what or condition!r}"
            raise AssertionError(message)
        time.sleep(min(0.02, max(0.001, waited / 20)))
    return seen
