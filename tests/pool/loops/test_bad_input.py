"""What cannot be done at a loop says so in a sentence, and loses no slot."""

from __future__ import annotations

import asyncio
import gc
import warnings

import pytest
from sqlalchemy import event, exc, text

from plugins.tasks import settled


async def one(engine):
    async with engine.connect() as connection:
        return await connection.scalar(text("select 1"))


def test_a_connection_without_a_loop_is_refused_and_loses_no_slot(make_async):
    engine = make_async(pool_size=1, max_overflow=0, pool_timeout=0.2)
    with pytest.raises(exc.InvalidRequestError, match="no loop of asyncio runs"):
        engine.sync_engine.connect()
    assert engine.pool.stats().in_use == 0

    async def main():
        assert await one(engine) == 1
        await engine.dispose()

    asyncio.run(main())
    assert engine.pool.stats().in_use == 0


def test_who_waits_without_a_loop_is_told_so_and_takes_nothing(make_async):
    engine = make_async(pool_size=1, max_overflow=0, pool_timeout=0.2)

    async def main():
        async with engine.connect():
            with pytest.raises(exc.InvalidRequestError, match="no loop of asyncio"):
                await asyncio.to_thread(engine.sync_engine.connect)
        assert await one(engine) == 1
        await engine.dispose()

    asyncio.run(main())


def test_a_loop_that_is_closed_under_a_checkout_gives_the_slot_back(make_async):
    engine = make_async(pool_size=1, max_overflow=0, pool_timeout=5)
    loop = asyncio.new_event_loop()
    connection = loop.run_until_complete(engine.connect().start())
    loop.run_until_complete(connection.execute(text("select 1")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of the loop's transports
        loop.close()
        assert engine.pool.stats().in_use == 1
        del connection
        gc.collect()
        assert engine.pool.stats().in_use == 0
        assert asyncio.run(one(engine)) == 1
        engine.sync_engine.dispose()
        gc.collect()


@pytest.mark.parametrize("name", ["connect", "checkout", "reset", "checkin"])
def test_a_listener_that_runs_a_loop_of_its_own_loses_no_slot(make_async, name):
    engine = make_async(pool_size=1, max_overflow=0, pool_timeout=5)
    bad = True

    async def ask():
        await asyncio.sleep(0)

    @event.listens_for(engine.sync_engine.pool, name)
    def awaits(*_args):
        if bad:
            coroutine = ask()
            try:
                asyncio.run(coroutine)
            finally:
                coroutine.close()

    async def main():
        nonlocal bad
        for _ in range(3):
            # What a reset raises is logged, as with every pool of SQLAlchemy's.
            try:
                assert await one(engine) == 1
            except RuntimeError as error:
                assert "running event loop" in str(error)  # noqa: PT017 - or none
            else:
                assert name == "reset"
            assert engine.pool.stats().in_use == 0
        bad = False
        assert await one(engine) == 1
        await settled(engine.pool)
        await engine.dispose()

    asyncio.run(main())


def test_a_listener_that_is_a_coroutine_function_is_refused_by_name(make_async):
    engine = make_async()

    async def prepare(_connection, _record):
        await asyncio.sleep(0)

    event.listen(engine.sync_engine.pool, "connect", prepare)

    async def main():
        with pytest.raises(exc.ArgumentError, match="prepare, a listener of 'connect'"):
            await one(engine)
        assert engine.pool.stats().in_use == 0

    asyncio.run(main())
