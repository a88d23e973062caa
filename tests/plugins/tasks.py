"""Tasks of asyncio that are cancelled at a chosen step; nothing here needs a pool."""

from __future__ import annotations

import asyncio

import pytest


class Cancelled:
    """Runs a coroutine in the running task, and cancels that at its n-th suspension.

    Args:
        work: The coroutine.
        step: At which suspension, from 1.
        late: Whether in the loop's next round, when what is waited for may have come.
    """

    def __init__(self, work, step, *, late=False):
        self._work = work
        self._step = step
        self._late = late
        self.steps = 0

    def __await__(self):
        """Pass everything through, and cancel when it is time."""
        inner = self._work.__await__()
        resume, value = inner.send, None
        while True:
            try:
                waited_for = resume(value)
            except StopIteration as end:
                return end.value
            self.steps += 1
            if self.steps == self._step:
                task = asyncio.current_task()
                if self._late:
                    asyncio.get_running_loop().call_soon(task.cancel)
                else:
                    task.cancel()
            try:
                value = yield waited_for
                resume = inner.send
            except BaseException as error:
                resume, value = inner.throw, error


async def cancelled_at(work, step, *, late=False):
    """Run a coroutine as a task that is cancelled at its n-th suspension.

    Returns:
        Whether it came so far.
    """
    steps = Cancelled(work, step, late=late)

    async def run():
        await steps

    (ended,) = await asyncio.gather(asyncio.create_task(run()), return_exceptions=True)
    if steps.steps < step:
        assert ended is None, ended
        return False
    # What had ended before the loop's next round was not cancelled.
    is_late = late and ended is None
    assert is_late or isinstance(ended, asyncio.CancelledError), repr(ended)
    return True


async def until(condition, pause=0.001):
    """Return when a condition holds; let the loop go on meanwhile."""
    for _ in range(60_000):
        if condition():
            return
        await asyncio.sleep(pause)
    pytest.fail("it does not come true")


async def settled(pool):
    """Return when nobody has a connection."""
    await until(lambda: pool.checkedout() == 0)
