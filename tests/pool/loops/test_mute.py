"""A server that says no more: what is bounded, from outside the loop."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
from sqlalchemy import exc, text
from sqlalchemy.pool import AsyncAdaptedQueuePool

import poolproof
from plugins.wire import SOON, Stopwatch, deadline_in


@pytest.fixture
def proxied_async(proxy, make_async, pg_url, async_driver):
    """Return a function that makes engines which reach the server by a proxy."""

    def make(**options):
        options.setdefault("pool_size", 1)
        options.setdefault("max_overflow", 0)
        url = pg_url(async_driver).set(port=proxy.port)
        return make_async(url, **options)

    return make


async def opened(engine):
    async with engine.connect() as connection:
        await connection.execute(text("select 1"))


def test_a_ping_a_rollback_and_a_close_end_in_time(proxied_async, proxy):
    engine = proxied_async(reset_timeout=0.3, ping_timeout=0.3, pool_pre_ping="always")

    async def main():
        connection = await engine.connect()
        await connection.execute(text("select 1"))
        proxy.links[-1].stall()
        with Stopwatch() as watch, pytest.raises(exc.DBAPIError) as caught:
            await connection.rollback()
        assert 0.3 <= watch.seconds < SOON
        assert deadline_in(caught.value).step == "rollback"
        await connection.close()
        await opened(engine)
        proxy.links[-1].stall()
        with Stopwatch() as watch:
            await opened(engine)  # the ping ends, and another is opened
        assert 0.3 <= watch.seconds < SOON
        proxy.links[-1].stall()
        with Stopwatch() as watch:
            await engine.dispose()
        assert watch.seconds < SOON
        assert engine.pool.checkedout() == 0

    asyncio.run(main())


def test_a_cancelled_task_goes_on_at_once(proxied_async, proxy):
    engine = proxied_async(reset_timeout=2)

    async def main():
        connection = await engine.connect()
        await connection.execute(text("select 1"))
        proxy.links[-1].stall()
        task = asyncio.create_task(connection.execute(text("select 2")))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await connection.close()
        assert engine.pool.checkedout() == 0
        await opened(engine)

    with Stopwatch() as watch:
        asyncio.run(main())
    assert watch.seconds < SOON


def test_the_same_holds_sqlalchemys_pool_up(proxied_async, proxy, async_driver):
    """What a cancelled task waits for, with each of the two pools in turn."""
    if async_driver == "poolproof":
        pytest.skip("the driver itself lets the task go on, whatever the pool")
    taken = {}

    async def main(pool_class):
        engine = proxied_async(poolclass=pool_class)
        connection = await engine.connect()
        await connection.execute(text("select 1"))
        proxy.links[-1].stall()
        task = asyncio.create_task(connection.execute(text("select 2")))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await connection.close()
        taken[pool_class] = time.monotonic() - began
        with contextlib.suppress(Exception):
            await engine.dispose()

    asyncio.run(main(poolproof.AsyncPool))
    asyncio.run(main(AsyncAdaptedQueuePool))
    assert taken[poolproof.AsyncPool] < taken[AsyncAdaptedQueuePool] / 2


def test_a_holder_whose_loop_is_blocked_is_cut_off(proxied_async, proxy, observer):
    engine = proxied_async(hold_timeout=1)

    async def main():
        connection = await engine.connect()
        pid = await connection.scalar(text("select pg_backend_pid()"))
        # No word of the loop's is needed: it stands still.
        end = time.monotonic() + SOON
        while observer.rows("select 1 from pg_stat_activity where pid = %s", pid):
            assert time.monotonic() < end
            time.sleep(0.01)  # noqa: ASYNC251 - that is what is tested
        with pytest.raises(exc.DBAPIError) as caught:
            await connection.execute(text("select 1"))
        assert deadline_in(caught.value).step == "hold"
        await connection.close()
        await opened(engine)

    asyncio.run(main())


def test_connecting_to_a_peer_that_is_deaf_is_bounded(make_async, deaf, async_driver):
    engine = make_async(
        deaf.url(async_driver), pool_size=1, max_overflow=0, checkout_timeout=0.5
    )

    async def main():
        with Stopwatch() as watch, pytest.raises(Exception, match=r"(?i)time|connect"):
            await engine.connect()
        assert watch.seconds < SOON
        assert engine.pool.checkedout() == 0

    asyncio.run(main())
