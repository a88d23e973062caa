"""`host_budget` where tasks wait for a share, and loops close what has one."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

import poolproof
from plugins.tasks import until
from plugins.threads import eventually


@pytest.fixture
def budgeted(make_async, tmp_path):
    """Make engines that share a budget in a directory of the test's own."""

    def make(most=2, **options):
        options.setdefault("pool_size", 5)
        return make_async(host_budget=("app", most, str(tmp_path)), **options)

    return make


def held(engine):
    return sum(engine.pool.budget.parts().held.values())


def left_behind(engine):
    """Count the shares whose last holder may have something alive at the server."""
    budget = engine.pool.budget
    shares = budget._shares()
    every = [shares.take(budget.most) for _ in range(budget.most)]
    return sum(share.was_left for share in every)


async def one(engine):
    async with engine.connect() as connection:
        return await connection.scalar(text("select 1"))


def test_who_waits_for_a_share_stops_no_loop_and_is_told_who_has_them(budgeted):
    first, second = budgeted(), budgeted(pool_timeout=0.5)
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.005)

    async def main():
        ticking = asyncio.create_task(tick())
        async with first.connect(), first.connect():
            before = ticks
            with pytest.raises(poolproof.PoolTimeout, match="host budget 'app'"):
                await second.connect()
            assert ticks - before > 2  # of a loop that slept there would be none
        assert second.pool.totals.timeouts.copy() == {"host_budget": 1}
        assert await one(second) == 1  # what rests in the first is given up for it
        assert second.pool.stats().in_use == 0
        ticking.cancel()

    asyncio.run(main())


def test_a_task_cancelled_while_it_waits_leaves_the_line(budgeted):
    first, second = budgeted(most=1), budgeted(most=1)

    async def main():
        async with first.connect():
            waiting = asyncio.create_task(one(second))
            await until(lambda: sum(second.pool.budget.parts().waiting.values()))
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert not sum(second.pool.budget.parts().waiting.values())
        assert await one(second) == 1

    asyncio.run(main())


def test_a_closed_connection_gives_its_share_back_once_the_server_knows(
    budgeted, observer
):
    engine = budgeted(most=3)

    async def main():
        async with engine.connect() as connection:
            async with engine.connect():
                assert held(engine) == 2
            await connection.invalidate()
        await engine.dispose()

    asyncio.run(main())  # whose loop is closed at once
    eventually(lambda: held(engine) == 0)
    assert left_behind(engine) == 0


def test_a_server_never_counts_more_than_the_budget(budgeted, observer):
    engines = [budgeted(most=3, pool_size=3) for _ in range(3)]
    counts = []

    async def look():
        while True:
            counts.append(
                (
                    await asyncio.to_thread(
                        observer.rows,
                        "select count(*) from pg_stat_activity"
                        " where backend_type = 'client backend'"
                        " and pid <> pg_backend_pid() and query ~ 'of a budget'",
                    )
                )[0][0]
            )
            await asyncio.sleep(0.01)

    async def work(engine, n):
        for _ in range(10):
            async with engine.connect() as connection:
                await connection.execute(text("select 1 /* of a budget */"))
                if n % 3 == 0:
                    await connection.invalidate()

    async def main():
        looking = asyncio.create_task(look())
        await asyncio.gather(*(work(engine, n) for n, engine in enumerate(engines * 4)))
        looking.cancel()
        for engine in engines:
            await engine.dispose()

    asyncio.run(main())
    assert max(counts) <= 3


def test_a_task_takes_what_comes_to_rest_in_its_own_pool(budgeted):
    engine = budgeted(most=1)

    async def main():
        async with engine.connect():
            waiting = asyncio.create_task(one(engine))
            await until(lambda: sum(engine.pool.budget.parts().waiting.values()))
        assert await waiting == 1
        assert held(engine) == 1

    asyncio.run(main())
