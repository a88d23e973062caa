"""A connection that nobody has any more, and nobody has closed."""

from __future__ import annotations

import asyncio
import gc
import warnings

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

import poolproof
from plugins.leaks import sockets
from plugins.threads import eventually
from poolproof.fork import sockets as watched


def test_its_slot_is_free_and_the_log_says_where_it_was_checked_out(
    make_async, caplog, recwarn
):
    engine = make_async(pool_size=1, max_overflow=0)

    async def lose():
        connection = await engine.connect()  # here it was checked out
        await connection.execute(text("select 1"))

    async def main():
        await lose()
        gc.collect()
        assert engine.pool.checkedout() == 0
        async with engine.connect() as connection:
            assert await connection.scalar(text("select 1")) == 1
        assert engine.pool.stats().discarded == {"lost": 1}

    asyncio.run(main())
    (said,) = [m for m in caplog.messages if "was collected" in m]
    assert "in lose" in said
    assert "test_lost.py" in said
    assert not [w for w in recwarn if "garbage collector" in str(w.message)]


def test_a_session_that_was_lost(make_async, caplog, recwarn):
    engine = make_async(pool_size=1, max_overflow=0)

    async def lose():
        session = AsyncSession(engine)
        await session.execute(text("select 1"))

    async def main():
        for _ in range(3):
            await lose()
            gc.collect()
            assert engine.pool.checkedout() == 0
        async with engine.connect() as connection:
            assert await connection.scalar(text("select 1")) == 1

    asyncio.run(main())
    said = [m for m in caplog.messages if "was collected" in m]
    assert len(said) == 3
    assert all("in lose" in one and "test_lost.py" in one for one in said)
    assert not [w for w in recwarn if "garbage collector" in str(w.message)]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_engine_that_is_dropped_with_its_loop_leaves_no_descriptor(
    pg_url, async_driver
):
    """SQLAlchemy's adapters know no weak references, which would tell of their end."""

    async def main():
        url = pg_url(async_driver).set(query={})
        engine = create_async_engine(url, poolclass=poolproof.AsyncPool)
        async with engine.connect() as one, engine.connect() as other:
            await one.execute(text("select 1"))
            await other.execute(text("select 1"))

    def left():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
        return sockets() - before or set(watched._watched) - known

    asyncio.run(main())  # what is loaded and begun once
    gc.collect()
    before, known = sockets(), set(watched._watched)
    asyncio.run(main())
    eventually(lambda: not left(), what="all descriptors are closed")
