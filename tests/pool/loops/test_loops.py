"""One engine in several loops, in loops that were closed, and in none."""

from __future__ import annotations

import asyncio
import sys
import threading

from sqlalchemy import text

from plugins.processes import run_script
from plugins.tasks import settled, until
from plugins.threads import Task, eventually
from poolproof.pool.loops import TaskWaiters

PID = text("select pg_backend_pid()")


def test_two_loops_in_two_threads_share_an_engine(make_async):
    engine = make_async(pool_size=4, max_overflow=0, pool_timeout=60)
    begin = threading.Barrier(2)

    async def many(name):
        begin.wait(60)

        async def one(number):
            async with engine.connect() as connection:
                asked = text("select cast(:n as int), pg_sleep(0.001)")
                row = (await connection.execute(asked, {"n": number})).one()
                assert row[0] == number

        for _ in range(5):
            await asyncio.gather(*(one(number) for number in range(20)))
        return name

    tasks = [Task(asyncio.run, many(name)) for name in ("one", "other")]
    assert [task.result() for task in tasks] == ["one", "other"]
    stats = engine.pool.stats()
    assert (stats.in_use, stats.waiting) == (0, 0)
    assert stats.idle <= 4


def test_each_loop_is_lent_its_own_while_both_have_some(make_async):
    engine = make_async(pool_size=4, max_overflow=0)

    async def pids():
        found = set()
        for _ in range(6):
            async with engine.connect() as connection:
                found.add(await connection.scalar(PID))
        return found

    with asyncio.Runner() if sys.version_info >= (3, 11) else _Runner() as mine:
        first = mine.run(pids())
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            other = asyncio.run_coroutine_threadsafe(pids(), loop).result(60)
            again = asyncio.run_coroutine_threadsafe(pids(), loop).result(60)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(60)
        assert other == again
        assert not first & other
        loop.close()
        engine.sync_engine.dispose()


class _Runner:
    """What Python 3.11 has as `asyncio.Runner`."""

    def __enter__(self):
        self._loop = asyncio.new_event_loop()
        return self

    def run(self, work):
        return self._loop.run_until_complete(work)

    def __exit__(self, *_error):
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


def test_a_loop_that_was_closed_gives_its_slots_back(make_async, observer):
    engine = make_async(pool_size=2, max_overflow=0)

    async def fill():
        out = [await engine.connect() for _ in range(2)]
        pids = [await one.scalar(PID) for one in out]
        for one in out:
            await one.close()
        return pids

    first = asyncio.run(fill())
    second = asyncio.run(fill())
    assert not set(first) & set(second)
    eventually(
        lambda: (
            not observer.rows(
                "select 1 from pg_stat_activity where pid = any(%s)", first
            )
        )
    )
    assert engine.pool.stats().discarded == {"other_loop": 2}
    engine.sync_engine.dispose()
    assert engine.pool.stats().idle == 0


def test_loops_that_share_a_pool_do_not_connect_for_each_request(make_async):
    engine = make_async(pool_size=4, max_overflow=0, pool_timeout=60)
    together = threading.Barrier(2)
    times = 50

    async def ask():
        for _ in range(times):
            async with engine.connect() as connection:
                await connection.execute(text("select 1"))

    async def ask_side_by_side():
        await asyncio.gather(*(ask() for _ in range(4)))

    def serve():
        together.wait(60)
        asyncio.run(ask_side_by_side())

    for thread in [Task(serve) for _ in range(2)]:
        thread.result()
    stats = engine.pool.stats()
    assert stats.checkouts_total == 2 * 4 * times
    # In order of arrival three quarters of them find another loop's connection.
    assert stats.discarded.get("other_loop", 0) < stats.checkouts_total / 4


def test_a_place_in_the_queue_of_a_loop_that_was_closed_is_the_next_ones(make_async):
    engine = make_async(pool_size=1, max_overflow=0, pool_timeout=60)
    gone = asyncio.new_event_loop()

    async def main():
        async with engine.connect():
            thread = Task(begin_to_wait)
            await until(lambda: engine.pool.stats().waiting >= 1)
            waits = asyncio.create_task(ask())
            await until(lambda: engine.pool.stats().waiting >= 2)
            thread.result()
        assert await waits == 1
        await settled(engine.pool)
        await engine.dispose()

    async def ask():
        async with engine.connect() as connection:
            return await connection.scalar(text("select 1"))

    kept = []

    def begin_to_wait():
        kept.append(gone.create_task(ask()))
        while engine.pool.stats().waiting < 1:
            gone.run_until_complete(asyncio.sleep(0.001))
        gone.close()

    asyncio.run(main())
    kept[0]._log_destroy_pending = False


def test_who_waits_in_a_loop_that_stands_still_is_passed_over(make_async, monkeypatch):
    monkeypatch.setattr(TaskWaiters, "look_again_s", 0.2)
    engine = make_async(pool_size=1, max_overflow=0, pool_timeout=60)
    stopped = asyncio.new_event_loop()
    kept = []

    def begin_to_wait(waiting):
        kept.append(stopped.create_task(ask()))
        while engine.pool.stats().waiting < waiting:
            stopped.run_until_complete(asyncio.sleep(0.001))

    async def ask():
        async with engine.connect() as connection:
            return await connection.scalar(text("select 1"))

    async def main():
        # Once its turn comes while it stands still; once it has come before.
        for granted in (False, True):
            async with engine.connect() as connection:
                await asyncio.to_thread(begin_to_wait, 1)
                waits = asyncio.create_task(ask())
                await until(lambda: engine.pool.stats().waiting >= 2)
                if granted:
                    kept[-1].get_loop().is_running = lambda: True
                await connection.close()
                if granted:
                    await asyncio.sleep(0.05)
                    assert not waits.done()
                    del kept[-1].get_loop().is_running
            assert await asyncio.wait_for(waits, 60) == 1
        # It goes on, and is served after all.
        served = [asyncio.to_thread(stopped.run_until_complete, one) for one in kept]
        for one in served:
            assert await asyncio.wait_for(one, 60) == 1
        await settled(engine.pool)
        await engine.dispose()

    asyncio.run(main())
    stopped.run_until_complete(asyncio.sleep(0))  # it closes what was its own
    stopped.close()


def test_dispose_from_another_thread_and_without_a_loop(make_async, observer):
    engine = make_async(pool_size=2, max_overflow=0)

    async def main():
        async with engine.connect() as connection:
            pid = await connection.scalar(PID)
        await asyncio.to_thread(engine.sync_engine.dispose)
        await until(
            lambda: (
                not observer.rows("select 1 from pg_stat_activity where pid = %s", pid)
            )
        )
        async with engine.connect() as connection:
            return await connection.scalar(PID)

    pid = asyncio.run(main())
    engine.sync_engine.dispose()
    eventually(
        lambda: not observer.rows("select 1 from pg_stat_activity where pid=%s", pid)
    )


LEAVES = """
import asyncio, gc, sys
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
import poolproof

engine = create_async_engine(sys.argv[1], poolclass=poolproof.AsyncPool)
kept = []

async def main():
    async with engine.connect() as connection:
        assert await connection.scalar(text("select 1")) == 1
    kept.append(await engine.connect())
    await kept[0].execute(text("select 1"))

asyncio.run(main())
if sys.argv[2] == "collect":
    kept.clear()
    gc.collect()
print("end")
"""


def test_the_end_of_the_interpreter_is_silent(pg_url, async_driver, tmp_path):
    url = pg_url(async_driver).set(query={}).render_as_string(hide_password=False)
    for how in ("collect", "nothing"):
        ended = run_script(LEAVES, url, how)
        assert ended.stdout == "end\n"
        if how == "collect":
            assert "was collected, and not closed before" in ended.stderr
            assert "Traceback" not in ended.stderr
        else:
            assert ended.stderr == "", how
