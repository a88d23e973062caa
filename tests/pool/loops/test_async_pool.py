"""What `QueuePool` promises, kept for tasks; and what `Pool` adds to it."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import event, exc, pool, text

import poolproof
from plugins.tasks import settled, until

ONE = text("select 1")
PID = text("select pg_backend_pid()")


def goes_on(observer, pid):
    return observer.rows("select 1 from pg_stat_activity where pid = %s", pid)


def test_tasks_are_served_in_the_order_in_which_they_came(make_async):
    engine = make_async(pool_size=2, max_overflow=0)
    served = []

    async def one(number):
        async with engine.connect() as connection:
            served.append(number)
            await connection.execute(ONE)

    async def main():
        async with engine.connect(), engine.connect():
            pass
        await asyncio.gather(*(one(number) for number in range(40)))
        assert served == list(range(40))
        stats = engine.pool.stats()
        assert (stats.idle, stats.in_use, stats.checkouts_total) == (2, 0, 42)
        assert stats.waited_total >= 38

    asyncio.run(main())


def test_a_task_whose_time_is_over_hears_of_it_and_takes_nothing(make_async):
    engine = make_async(pool_size=1, max_overflow=0, pool_timeout=0.05)

    async def other():
        await engine.connect()

    async def main():
        async with engine.connect():
            with pytest.raises(poolproof.PoolTimeout) as caught:
                await asyncio.create_task(other())
            assert caught.value.waited >= 0.05
        async with engine.connect() as connection:
            assert await connection.scalar(ONE) == 1

    asyncio.run(main())


def test_what_is_beyond_the_size_is_closed_at_its_return(make_async):
    engine = make_async(pool_size=1, max_overflow=2)

    async def main():
        out = [await engine.connect() for _ in range(3)]
        for connection in out:
            await connection.execute(ONE)
            await connection.close()
        assert engine.pool.stats().idle == 1

    asyncio.run(main())


def test_a_transaction_that_was_left_open_is_rolled_back(make_async, observer, table):
    engine = make_async(pool_size=1, max_overflow=0)

    async def main():
        async with engine.connect() as connection:
            await connection.execute(text(f"insert into {table} values (1)"))
        async with engine.connect() as connection:
            assert await connection.scalar(text(f"select count(*) from {table}")) == 0
        assert engine.pool.stats().discarded == {}

    asyncio.run(main())


def test_a_begin_of_the_drivers_own_is_not_lent_on(make_async):
    engine = make_async(pool_size=1, max_overflow=0)

    async def main():
        async with engine.connect() as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            await raw.execute("begin")
        async with engine.connect() as connection:
            assert await connection.scalar(text("select now() <= clock_timestamp()"))
            raw = (await connection.get_raw_connection()).driver_connection
        if engine.dialect.driver == "asyncpg":  # psycopg's own rollback ends it
            assert engine.pool.stats().discarded == {"in_transaction": 1}

    asyncio.run(main())


def test_a_session_that_the_server_has_ended_is_replaced(make_async, observer):
    engine = make_async(pool_size=1, max_overflow=0)

    async def main():
        async with engine.connect() as connection:
            pid = await connection.scalar(PID)
        observer.end(pid)
        async with engine.connect() as connection:
            assert await connection.scalar(PID) != pid
        assert engine.pool.stats().discarded == {"dead": 1}
        # The loop has read the end by itself.
        async with engine.connect() as connection:
            pid = await connection.scalar(PID)
        observer.end(pid)
        await asyncio.sleep(0.05)
        async with engine.connect() as connection:
            assert await connection.scalar(PID) != pid
        assert engine.pool.stats().discarded == {"dead": 2}

    asyncio.run(main())


def test_a_connection_that_has_rested_is_asked(make_async):
    engine = make_async(pool_size=1, max_overflow=0, pool_pre_ping="always")

    async def main():
        for _ in range(3):
            async with engine.connect() as connection:
                assert await connection.scalar(ONE) == 1
        pings = engine.pool.totals.pings.copy()
        assert pings == {"ok": 2}
        assert engine.pool.stats().discarded == {}

    asyncio.run(main())


def test_events_come_as_they_do_from_sqlalchemys_pool(make_async):
    engine = make_async(pool_size=1, max_overflow=0)
    heard = []
    for name in ("connect", "checkout", "checkin", "close", "reset"):
        event.listen(
            engine.sync_engine, name, lambda *_args, name=name: heard.append(name)
        )

    async def main():
        async with engine.connect() as connection:
            await connection.execute(ONE)
        await engine.dispose()

    asyncio.run(main())
    assert heard == ["connect", "checkout", "reset", "checkin", "close"]


def test_dispose_leaves_an_engine_that_can_be_used(make_async, observer):
    engine = make_async(pool_size=2, max_overflow=0)

    async def main():
        async with engine.connect() as held:
            async with engine.connect() as connection:
                old = await connection.scalar(PID)
            await engine.dispose()
            await until(lambda: not goes_on(observer, old))
            assert await held.scalar(ONE) == 1
        async with engine.connect() as connection:
            assert await connection.scalar(PID) != old
        await engine.dispose()

    asyncio.run(main())


def test_a_block_bounds_its_statements_also_as_an_async_one(make_async):
    engine = make_async(pool_size=1, max_overflow=0)

    async def main():
        async with engine.connect() as connection:
            with pytest.raises(exc.DBAPIError) as caught:
                async with poolproof.deadline(0.2):
                    await connection.execute(text("select pg_sleep(60)"))
            assert caught.value.connection_invalidated
            found = caught.value.orig
            while found is not None and not isinstance(
                found, poolproof.DeadlineExceeded
            ):
                found = found.__cause__
            assert found is not None
            assert (found.step, found.limit) == ("deadline", 0.2)
        async with engine.connect() as connection:
            assert await connection.scalar(ONE) == 1

    asyncio.run(main())


@pytest.mark.parametrize("of_class", [False, True])
@pytest.mark.parametrize("name", ["reset", "checkin"])
def test_a_listener_that_comes_late_hears_of_each_check_in(make_async, name, of_class):
    engine = make_async(pool_size=1)
    heard = []

    def hears(*_args):
        heard.append(name)

    async def ask():
        async with engine.connect() as connection:
            await connection.execute(text("select 1"))

    async def main():
        await ask()
        # SQLAlchemy has no listeners of a class that is asyncio's.
        target = pool.Pool if of_class else engine.sync_engine.pool
        event.listen(target, name, hears)
        try:
            await ask()
            await ask()
        finally:
            event.remove(target, name, hears)
        assert heard == [name] * 2
        await engine.dispose()

    asyncio.run(main())


def test_who_has_a_new_connection_may_keep_it_for_longer_than_a_checkout(make_async):
    engine = make_async(checkout_timeout=0.5)

    async def main():
        for _ in range(2):
            async with engine.connect() as connection:
                await connection.execute(text("select 1"))
                await asyncio.sleep(1)
                assert await connection.scalar(text("select 1")) == 1
        assert engine.pool.stats().discarded == {}

    asyncio.run(main())


def test_a_task_that_waits_for_what_it_holds_is_told(make_async, caplog):
    engine = make_async(pool_size=1, max_overflow=0, nested_timeout=0.05)

    async def main():
        async with engine.connect():
            with pytest.raises(poolproof.NestedCheckout):
                await engine.connect()
        await settled(engine.pool)

    asyncio.run(main())
    assert "is held by a caller that waits" in caplog.text


def test_the_keeper_closes_and_opens_in_the_loop(make_async, observer):
    engine = make_async(pool_size=3, max_overflow=0, min_idle=2, max_lifetime=1)

    async def main():
        async with engine.connect() as connection:
            first = await connection.scalar(PID)
        await until(lambda: engine.pool.stats().idle >= 2)
        await until(lambda: not goes_on(observer, first))
        await until(lambda: engine.pool.stats().idle >= 2)
        assert engine.pool.stats().discarded["lifetime"] >= 1
        async with engine.connect() as connection:
            assert await connection.scalar(ONE) == 1
        await engine.dispose()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_server_that_is_away_holds_up_no_loop(make_async, refusing, async_driver):
    url = refusing.url(async_driver)
    engine = make_async(url, pool_size=4, max_overflow=0, connect_retry_for=10)

    async def main():
        tries = [asyncio.create_task(engine.connect().start()) for _ in range(4)]
        await until(lambda: engine.pool.stats().connect_failures > 2)
        for _ in range(50):
            await asyncio.sleep(0.005)
        # One that blocked its thread would let the loop go on four times a second.
        assert not any(one.done() for one in tries)
        for one in tries:
            one.cancel()
        ended = await asyncio.gather(*tries, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in ended), ended
        assert engine.pool.checkedout() == 0

    asyncio.run(main())
