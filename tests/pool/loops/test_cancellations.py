"""A task is cancelled, anywhere: it hears of it, and the pool is whole."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random

import pytest
from sqlalchemy import text

from plugins.tasks import cancelled_at, settled, until

TAKES = text("select pg_sleep(0.002)")
ASKS = text("select cast(:n as int), pg_backend_pid()")


async def answers(engine, number):
    """Assert that the pool lends a connection that answers what it is asked."""
    async with engine.connect() as connection:
        row = (await connection.execute(ASKS, {"n": number})).one()
        assert row[0] == number


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


def storm(engine, observer, table, cancellations):
    """Cancel tasks at random moments; assert that all is right in the end."""
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

    async def one(number):
        seconds = moments.expovariate(1 / 0.01)
        with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
            await asyncio.wait_for(work(number), seconds)

    async def main():
        for start in range(0, cancellations, 50):
            await asyncio.gather(*(one(start + n) for n in range(50)))
        await settled(engine.pool)
        await asyncio.gather(*(answers(engine, n) for n in range(8)))
        stats = engine.pool.stats()
        assert (stats.in_use, stats.waiting) == (0, 0)
        assert stats.idle <= 4

    asyncio.run(main())
    assert not wrong
    rows = [n for (n,) in observer.rows(f"select n from {table}")]
    assert set(told) <= set(rows)
    assert len(rows) == len(set(rows))
    return told


def test_a_storm_of_cancellations(make_async, observer, table):
    engine = make_async(pool_size=4, max_overflow=0, pool_timeout=60)
    storm(engine, observer, table, 500)


@pytest.mark.soak
def test_a_long_storm_of_cancellations(make_async, observer, table):
    engine = make_async(pool_size=4, max_overflow=0, pool_timeout=60)
    told = storm(engine, observer, table, 20_000)
    assert told
