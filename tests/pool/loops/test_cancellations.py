"""A task is cancelled, anywhere: it hears of it, and the pool is whole."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import sys
import time

import anyio
import pytest
import uvloop
from sqlalchemy import text

from plugins.tasks import cancelled_at, settled, until
from plugins.threads import Task

TAKES = text("select pg_sleep(0.002)")
ASKS = text("select cast(:n as int), pg_backend_pid()")


async def answers(engine, number):
    """Assert that the pool lends a connection that answers what it is asked."""
    async with engine.connect() as connection:
        row = (await connection.execute(ASKS, {"n": number})).one()
        assert row[0] == number


# psycopg's, of a cursor on the server whose task was cancelled.
@pytest.mark.filterwarnings("ignore:.*deleted while still open:ResourceWarning")
def test_a_stream_cancelled_at_any_step_leaves_nothing_to_the_next(make_async):
    engine = make_async(pool_size=1, max_overflow=0, pool_timeout=30)
    rows = text("select n, pg_sleep(0.0005) from generate_series(1, 30) as n")

    async def read():
        async with engine.connect() as connection:
            await connection.execution_options(yield_per=10)
            async with connection.stream(rows) as result:
                read = [n async for n, _slept in result]
        assert read == list(range(1, 31))

    async def main():
        for step in itertools.count(1):
            came = await cancelled_at(read(), step)
            await settled(engine.pool)
            await answers(engine, step)
            if not came:
                return step
        return None

    assert asyncio.run(main()) > 5


@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_task_cancelled_at_any_step_loses_no_slot_and_no_commit(
    make_async, observer, table, end, late
):
    engine = make_async(pool_size=1, max_overflow=0, pool_timeout=30)
    insert = text(f"insert into {table} values (:n)")
    told = []

    async def work(number):
        connection = await engine.connect()
        try:
            await connection.execute(TAKES)
            await connection.execute(insert, {"n": number})
            await getattr(connection, end)()
            told.append(number)
            await connection.execute(TAKES)
        finally:
            await connection.close()

    async def main():
        for step in itertools.count(1):
            came = await cancelled_at(work(step), step, late=late)
            await settled(engine.pool)
            await answers(engine, step)
            if not came:
                return step
        return None

    steps = asyncio.run(main())
    assert steps > 5
    there = {n for (n,) in observer.rows(f"select n from {table}")}
    if end == "commit":
        assert there >= set(told)
    else:
        assert not there


def test_a_cancellation_at_any_step_of_a_first_connect(make_async):
    async def main():
        for step in itertools.count(1):
            engine = make_async(pool_size=1, max_overflow=0, pool_timeout=30)
            connecting = engine.connect()

            async def work(connecting=connecting):
                async with connecting as connection:
                    await connection.execute(TAKES)

            came = await cancelled_at(work(), step)
            await settled(engine.pool)
            await answers(engine, step)
            await engine.dispose()
            if not came:
                return

    asyncio.run(main())


def test_a_grant_to_a_task_that_is_cancelled_goes_to_the_next(make_async):
    engine = make_async(pool_size=1, max_overflow=0, pool_timeout=30)

    async def main():
        holder = await engine.connect()
        got = []

        async def waits(name):
            async with engine.connect():
                got.append(name)

        first = asyncio.create_task(waits("first"))
        second = asyncio.create_task(waits("second"))
        await until(lambda: engine.pool.stats().waiting >= 2, 0)
        closing = asyncio.create_task(holder.close())
        await until(lambda: engine.pool.stats().waiting <= 1, 0)
        first.cancel()  # it was granted the slot, and has not run since
        await closing
        ended = await asyncio.gather(first, second, return_exceptions=True)
        assert isinstance(ended[0], asyncio.CancelledError)
        assert got == ["second"]
        assert engine.pool.stats().waiting == 0

    asyncio.run(main())


def test_a_cancelled_statement_ends_on_the_server_and_its_caller_at_once(
    make_async, observer
):
    engine = make_async(pool_size=1, max_overflow=0)
    running = "select pid from pg_stat_activity where query = 'select pg_sleep(66)'"

    async def main():
        async def work():
            async with engine.connect() as connection:
                await connection.execute(text("select pg_sleep(66)"))

        task = asyncio.create_task(work())
        await until(lambda: observer.rows(running + " and state = 'active'"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await answers(engine, 1)  # the only slot is free
        await until(lambda: not observer.rows(running + " and state = 'active'"))
        assert engine.pool.stats().discarded == {"interrupted": 1}

    asyncio.run(main())


async def by_wait_for(work, seconds):
    with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
        await asyncio.wait_for(work, seconds)


async def by_timeout(work, seconds):
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await work


async def by_task_group(work, seconds):
    """Have a group cancel the work when another of its tasks fails."""

    async def fails():
        await asyncio.sleep(seconds)
        raise TimeoutError

    try:
        async with asyncio.TaskGroup() as group:
            failing = group.create_task(fails())
            await group.create_task(work)
            failing.cancel()
    except BaseException as error:
        # Of a group's errors none may be another than the one that was raised here.
        errors = getattr(error, "exceptions", None)
        if errors is None or not all(type(one) is TimeoutError for one in errors):
            raise


async def by_scope(work, seconds):
    with anyio.move_on_after(seconds):
        await work


NEW = pytest.mark.skipif(sys.version_info < (3, 11), reason="not in asyncio then")
WAYS = [
    by_wait_for,
    pytest.param(by_timeout, marks=NEW),
    pytest.param(by_task_group, marks=NEW),
    by_scope,
]


async def storm(engine, table, way, cancellations):
    """Cancel tasks at random moments.

    Returns:
        Who was told that its commit is done; and answers to another's question.
    """
    insert = text(f"insert into {table} values (:n)")
    told, wrong = [], []
    moments = random.Random(7)  # noqa: S311 - no secret

    async def work(number):
        async with engine.connect() as connection:
            row = (await connection.execute(ASKS, {"n": number})).one()
            if row[0] != number:
                wrong.append((number, row))
            await connection.execute(insert, {"n": number})
            await connection.commit()
        told.append(number)

    # A crowd that nobody disturbs says how long it takes here and now.
    crowd = 50
    began = time.monotonic()
    await asyncio.gather(*(work(-1 - n) for n in range(crowd)))
    whole = time.monotonic() - began
    for start in range(0, cancellations, crowd):
        await asyncio.gather(
            *(
                way(work(start + n), moments.expovariate(2 / whole))
                for n in range(min(crowd, cancellations - start))
            )
        )
    await settled(engine.pool)
    await asyncio.gather(*(answers(engine, n) for n in range(8)))
    return told, wrong


def assert_whole(engine, observer, table, ended):
    """Assert that nothing was lost, and nothing mixed."""
    stats = engine.pool.stats()
    assert (stats.in_use, stats.waiting) == (0, 0)
    assert stats.idle <= 4
    told = [n for told, _ in ended for n in told]
    assert [wrong for _, wrong in ended if wrong] == []
    rows = [n for (n,) in observer.rows(f"select n from {table}")]
    assert set(told) <= set(rows)
    assert len(rows) == len(set(rows)) or len(ended) > 1
    assert len([n for n in told if n >= 0]) > 0
    assert stats.discarded.get("interrupted", 0) > 0


@pytest.mark.parametrize("way", WAYS)
def test_a_storm_of_cancellations(make_async, observer, table, way):
    engine = make_async(pool_size=4, max_overflow=0, pool_timeout=600)
    ended = asyncio.run(storm(engine, table, way, 100))
    assert_whole(engine, observer, table, [ended])


# uvloop says of each transport that is open when its loop is closed that it is; where
# that warning is an error it leaves it open, and waits for it for ever.
@pytest.mark.filterwarnings("ignore:unclosed resource:ResourceWarning")
def test_a_storm_in_a_loop_of_uvloops(make_async, observer, table):
    engine = make_async(pool_size=4, max_overflow=0, pool_timeout=600)
    ended = uvloop.run(storm(engine, table, by_wait_for, 100))
    assert_whole(engine, observer, table, [ended])


def test_a_storm_in_two_loops_at_once(make_async, observer, table):
    engine = make_async(pool_size=4, max_overflow=0, pool_timeout=600)
    tasks = [
        Task(asyncio.run, storm(engine, table, by_wait_for, 100)) for _ in range(2)
    ]
    assert_whole(engine, observer, table, [task.result() for task in tasks])


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("way", WAYS)
def test_a_long_storm_of_cancellations(make_async, observer, table, way):
    engine = make_async(pool_size=4, max_overflow=0, pool_timeout=600)
    ended = asyncio.run(storm(engine, table, way, 20_000))
    assert_whole(engine, observer, table, [ended])
