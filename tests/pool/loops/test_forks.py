"""A fork beside and inside a running loop."""

from __future__ import annotations

import sys

import pytest

from plugins.processes import run_script

FORKED = """
import asyncio, json, os, sys, warnings
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
import poolproof
from poolproof.pool.loops import TaskWaiters

warnings.simplefilter("ignore", DeprecationWarning)
url, table, how = sys.argv[1:]
engine = create_async_engine(
    url,
    poolclass=poolproof.AsyncPool,
    pool_size=3,
    max_overflow=0,
    pool_timeout=600,
)
PID = text("select pg_backend_pid()")
TaskWaiters.look_again_s = 600.0

async def ask():
    async with engine.connect() as connection:
        return await connection.scalar(PID)

async def child(held, waits, parents):
    # What goes on is refused, what ends is silent; a loop of its own works.
    try:
        await held.execute(text("select 1"))
    except poolproof.ConnectionForked:
        pass
    else:
        os._exit(3)
    if sys.version_info < (3, 14):
        await held.close()  # which waits for a task: from 3.14 on asyncio wakes none
    if how == "waiting":
        # Whoever waited for a slot of the parent's hears of it, without looking again.
        try:
            await waits
        except (poolproof.ConnectionForked, RuntimeError):
            os._exit(0)
        os._exit(5)
    pid = asyncio.run(ask())
    if pid in parents:
        os._exit(4)
    if how == "through the loop":
        sys.exit(0)  # by way of asyncio.run, which closes the loop
    os._exit(0)

async def main():
    began = None
    idle = await ask()
    held = await engine.connect()
    await held.execute(text(f"insert into {table} values (1)"))
    mine = await held.scalar(PID)

    async def slow():
        async with engine.connect() as connection:
            try:
                answer = await connection.execute(text("select 7, pg_sleep(0.3)"))
            except poolproof.ConnectionForked:
                assert began == 0
                return None
            row = answer.one()
            await connection.scalar(PID)
            return row[0]

    slowly = asyncio.create_task(slow())
    third = await engine.connect()
    waits = asyncio.create_task(ask())
    while engine.pool.stats().waiting < 1:
        await asyncio.sleep(0.001)
    began = os.fork()
    if began == 0:
        await child(held, waits, {idle, mine})
    while (ended := os.waitpid(began, os.WNOHANG)) == (0, 0):
        await asyncio.sleep(0.005)  # the parent's loop is awake all the while
    assert ended[1] == 0, ended
    await asyncio.wait_for(asyncio.to_thread(sum, [1, 2]), 20)  # it hears of threads
    assert await asyncio.wait_for(slowly, 20) == 7
    await held.commit()
    assert await held.scalar(PID) == mine
    await held.close()
    await third.close()
    await asyncio.wait_for(waits, 20)
    for _ in range(5):
        await asyncio.wait_for(ask(), 20)
    assert engine.pool.stats().discarded == {}, engine.pool.stats()
    await engine.dispose()

asyncio.run(main())
"""


# From Python 3.14 on asyncio wakes no task of the parent's loop in a child, nor lets it
# end: an exit that is raised there is told to the loop's handler, and that is all.
GOES_ON = pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="asyncio lets no task go on in a child"
)


@pytest.mark.parametrize(
    "how",
    [
        pytest.param("through the loop", marks=GOES_ON),
        "at once",
        pytest.param("waiting", marks=GOES_ON),
    ],
)
def test_a_fork_inside_a_task_harms_neither(pg_url, async_driver, observer, table, how):
    url = pg_url(async_driver).set(query={}).render_as_string(hide_password=False)
    ended = run_script(FORKED, url, table, how)
    assert ended.stderr == ""
    assert observer.value(f"select count(*) from {table}") == 1
