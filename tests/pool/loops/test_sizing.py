"""`AsyncPool` and what changes a pool in use: bounds, a queue that is full, a drain."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import exc, text

import poolproof
from plugins.threads import eventually


def test_one_task_too_many_is_refused_at_once_and_more_room_serves_the_rest(make_async):
    engine = make_async(pool_size=1, max_overflow=0, max_waiting=1, pool_timeout=60)

    async def one():
        async with engine.connect() as connection:
            return await connection.scalar(text("select 1"))

    async def main():
        async with engine.connect():
            waiting = asyncio.ensure_future(one())
            while engine.pool.stats().waiting < 1:  # noqa: ASYNC110 - a number
                await asyncio.sleep(0.01)
            with pytest.raises(poolproof.TooManyWaiting):
                await one()
            engine.pool.resize(2, 0)
            assert await waiting == 1
        await engine.dispose()

    asyncio.run(main())


def test_a_drain_closes_all_and_the_next_opens_anew(make_async):
    engine = make_async(pool_size=2)

    async def pid(connection):
        return await connection.scalar(text("select pg_backend_pid()"))

    async def main():
        async with engine.connect() as held:
            async with engine.connect() as other:
                old = {await pid(held), await pid(other)}
            assert engine.pool.drain() == 0
            assert await pid(held) in old  # its holder goes on
        async with engine.connect() as one, engine.connect() as two:
            assert old.isdisjoint({await pid(one), await pid(two)})
        assert engine.pool.stats().discarded == {"drained": 2}
        await engine.dispose()

    asyncio.run(main())


def test_to_warm_it_is_refused(make_async):
    engine = make_async()
    with pytest.raises(exc.InvalidRequestError, match="min_idle"):
        engine.pool.warm(1)
    eventually(lambda: engine.pool.checkedin() == 0)
