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


STEPS = """
import asyncio, itertools, os, sys, warnings
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
import poolproof

warnings.simplefilter("ignore", DeprecationWarning)
url, kind = sys.argv[1:]
if kind == "uvloop":
    # A transport that it warns of at its end, it waits for where warnings are errors.
    warnings.simplefilter("ignore", ResourceWarning)
    from uvloop import run
else:
    from asyncio import run
engine = create_async_engine(
    url, poolclass=poolproof.AsyncPool, pool_size=1, max_overflow=0, pool_timeout=60
)
PID = text("select pg_backend_pid()")
seen = set()

async def work():
    async with engine.connect() as connection:
        seen.add(await connection.scalar(PID))
        assert await connection.scalar(text("select 7, pg_sleep(0.002)")) == 7
        await connection.commit()
        await connection.execute(text("select 8"))
        await connection.rollback()

class Forking:
    def __init__(self, step):
        self.step, self.steps, self.child = step, 0, None

    def __await__(self):
        inner = work().__await__()
        resume, value = inner.send, None
        while True:
            try:
                waited_for = resume(value)
            except StopIteration:
                return
            self.steps += 1
            if self.steps == self.step:
                self.child = os.fork()
                if self.child == 0:
                    in_child()
            try:
                value = yield waited_for
                resume = inner.send
            except BaseException as error:
                resume, value = inner.throw, error

def in_child():
    # What was in the middle is given up there; a loop of its own has its own session.
    before = set(seen)
    run(asyncio.wait_for(work(), 60))
    os._exit(0 if len(seen) == len(before) + 1 else 1)

async def main():
    runs = 1
    # Of one loop all, of the other every third.
    for step in itertools.count(1, 1 if kind == "asyncio" else 3):
        forking = Forking(step)
        await asyncio.wait_for(asyncio.create_task(go(forking)), 60)
        if forking.child is None:
            assert len(seen) == runs, seen
            return step
        runs += 1
        while (ended := os.waitpid(forking.child, os.WNOHANG)) == (0, 0):
            await asyncio.sleep(0.005)
        assert ended[1] == 0, (step, ended)
        assert engine.pool.checkedout() == 0
        assert engine.pool.stats().discarded == {}, engine.pool.stats()
        await engine.dispose()

async def go(forking):
    await forking

print(run(main()))
engine.sync_engine.dispose()
"""


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_a_fork_at_any_await_harms_neither(pg_url, async_driver, kind):
    url = pg_url(async_driver).set(query={}).render_as_string(hide_password=False)
    ended = run_script(STEPS, url, kind)
    assert ended.stderr == ""
    assert int(ended.stdout) > 5


WATCHES = """
import asyncio, os, pathlib, select, socket, sys, warnings
from sqlalchemy.ext.asyncio import create_async_engine
import poolproof

warnings.simplefilter("ignore", DeprecationWarning)
url, kind = sys.argv[1:]
if kind == "uvloop":
    from uvloop import run
else:
    from asyncio import run
engine = create_async_engine(url, poolclass=poolproof.AsyncPool)
NUMBER = 777

def watched(pid):
    # The numbers that the kernel watches for a process.
    found = set()
    for entry in pathlib.Path(f"/proc/{pid}/fdinfo").iterdir():
        for line in entry.read_text().splitlines():
            if line.startswith("tfd:"):
                found.add(int(line.split()[1]))
    return found

async def main():
    async with engine.connect():
        pass
    # The application's own, which is none of a loop's.
    read, write = os.pipe()
    other = select.epoll()
    other.register(read, select.EPOLLIN)
    child = os.fork()
    if child == 0:
        os.write(write, b"x")
        if other.poll(10) != [(read, select.EPOLLIN)]:
            os._exit(2)
        ours, theirs = socket.socketpair()
        os.dup2(ours.fileno(), NUMBER)
        asyncio.events._set_running_loop(loop)
        # From 3.14 on it takes each step, and complains of it; how the child ends is
        # what tells.
        loop.set_exception_handler(lambda *_: None)
        loop.add_reader(NUMBER, lambda: None)
        for _ in range(3):
            await asyncio.sleep(0.001)
        os._exit(1 if NUMBER in watched(os.getppid()) else 0)
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        await asyncio.sleep(0.005)
    assert ended[1] == 0, ended
    await asyncio.wait_for(asyncio.to_thread(sum, [1, 2]), 20)
    await engine.dispose()

async def begin():
    global loop
    loop = asyncio.get_running_loop()
    await main()

run(begin())
"""


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_a_parents_selector_hears_nothing_of_what_its_child_watches(
    pg_url, async_driver, kind
):
    url = pg_url(async_driver).set(query={}).render_as_string(hide_password=False)
    assert run_script(WATCHES, url, kind).stderr == ""
