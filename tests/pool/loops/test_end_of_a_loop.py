"""A loop ends while statements are under way: the server is told, nothing is said."""

from __future__ import annotations

import pytest

from plugins.processes import run_script
from plugins.threads import eventually

ENDS = """
import asyncio, gc, logging, os, signal, sys
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
import poolproof

logging.basicConfig(level=logging.ERROR)
url, kind, how = sys.argv[1:]
if kind == "uvloop":
    from uvloop import run
else:
    from asyncio import run
engine = create_async_engine(url, poolclass=poolproof.AsyncPool, pool_size=3)
started = []

async def sleeps():
    async with engine.connect() as connection:
        sleeping = connection.execute(text("select pg_sleep(88)"))
        asyncio.get_running_loop().call_later(0.2, started.append, 1)
        await sleeping

async def begin(count):
    tasks = [asyncio.create_task(sleeps()) for _ in range(count)]
    while len(started) < count:
        await asyncio.sleep(0.01)
    return tasks

async def leaves_tasks():
    await begin(3)

async def is_interrupted():
    (task,) = await begin(1)
    asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGINT)
    await task

async def leaves_no_task_of_the_pools():
    before = asyncio.all_tasks()
    tasks = await begin(3)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    left = asyncio.all_tasks() - before
    assert not left, left

try:
    run(globals()[how]())
except KeyboardInterrupt:
    print("interrupted")
engine.sync_engine.dispose()
gc.collect()
"""


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
@pytest.mark.parametrize(
    "how", ["leaves_tasks", "is_interrupted", "leaves_no_task_of_the_pools"]
)
def test_what_was_cancelled_at_its_end_ends_on_the_server(
    pg_url, async_driver, observer, kind, how
):
    url = pg_url(async_driver).set(query={}).render_as_string(hide_password=False)
    ended = run_script(ENDS, url, kind, how)
    assert ended.stderr == ""
    assert ended.stdout == ("interrupted\n" if how == "is_interrupted" else "")
    asleep = (
        "select 1 from pg_stat_activity"
        " where query = 'select pg_sleep(88)' and state = 'active'"
    )
    eventually(lambda: not observer.rows(asleep), seconds=20)
