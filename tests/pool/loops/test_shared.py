"""A connection that several tasks have, and a call that no task could wait for."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import AsyncSession

from plugins.tasks import settled, until

ONE = text("select 1")
SLOW = text("select 7, pg_sleep(0.3)")
SLEEPS = "select 1 from pg_stat_activity where query = 'select pg_sleep(77)'"
PID = text("select pg_backend_pid()")


async def is_asleep(observer):
    await until(lambda: observer.rows(f"{SLEEPS} and state = 'active'"))


def test_a_task_that_may_not_use_a_connection_now_costs_its_user_nothing(make_async):
    engine = make_async(pool_size=1, max_overflow=0)

    async def main():
        async with engine.connect() as connection:
            pid = await connection.scalar(PID)
            first = asyncio.create_task(connection.scalar(SLOW))
            await asyncio.sleep(0.05)
            # psycopg has it wait, our driver refuses, asyncpg does this or that.
            second = asyncio.create_task(connection.scalar(ONE))
            ended = await asyncio.wait_for(
                asyncio.gather(first, second, return_exceptions=True), 60
            )
            assert ended[0] == 7
            if ended[1] != 1:
                assert isinstance(ended[1], exc.InterfaceError)
                assert not ended[1].connection_invalidated
            assert await connection.scalar(PID) == pid
        assert engine.pool.stats().discarded == {}

    asyncio.run(main())


@pytest.mark.parametrize("how", ["invalidate", "close"])
def test_who_waits_for_an_answer_hears_that_another_has_ended_the_connection(
    make_async, async_driver, observer, how
):
    if (async_driver, how) == ("asyncpg", "close"):
        pytest.skip("asyncpg refuses the rollback, and may wait on, with any pool")
    engine = make_async(pool_size=1, max_overflow=0)

    async def main():
        connection = await engine.connect()
        waits = asyncio.create_task(connection.execute(text("select pg_sleep(77)")))
        await is_asleep(observer)
        ends = asyncio.create_task(getattr(connection, how)())
        done, _ = await asyncio.wait([waits], timeout=60)
        assert done, "it waits for ever"
        assert waits.exception() is not None
        await asyncio.gather(ends, return_exceptions=True)
        await connection.close()
        await settled(engine.pool)
        async with engine.connect() as again:
            assert await again.scalar(ONE) == 1

    asyncio.run(main())


def test_a_call_in_no_greenlet_is_refused_and_its_session_goes_on(make_async):
    engine = make_async(pool_size=1, max_overflow=0)

    async def main():
        async with AsyncSession(engine) as session:
            pid = await session.scalar(PID)
            connection = await session.connection()
            # As an attribute that has expired, or a relationship, is loaded.
            with pytest.raises(exc.SQLAlchemyError, match="greenlet_spawn"):
                connection.sync_connection.execute(ONE)
            assert await session.scalar(PID) == pid
            await session.commit()
        assert engine.pool.stats().discarded == {}

    asyncio.run(main())


# SQLAlchemy leaves the coroutine of the driver's that it could not await.
@pytest.mark.filterwarnings("ignore:coroutine .*connect.* was never awaited")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_checkout_in_no_greenlet_is_refused_and_takes_nothing(make_async):
    engine = make_async(pool_size=1, max_overflow=0, pool_timeout=60)

    async def main():
        with pytest.raises(exc.MissingGreenlet):
            engine.sync_engine.connect()
        async with engine.connect() as connection:
            assert await connection.scalar(ONE) == 1
            with pytest.raises(exc.MissingGreenlet):
                engine.sync_engine.connect()
        with pytest.raises(exc.MissingGreenlet):
            await asyncio.to_thread(engine.sync_engine.connect)
        assert engine.pool.checkedout() == 0
        async with engine.connect() as connection:
            assert await connection.scalar(ONE) == 1
        await engine.dispose()

    asyncio.run(main())
