"""`reset_on_return="discard_all"` on the drivers of asyncio."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import event, text

import poolproof

# Nothing of these is to outlive a check-in.
MAKE = (
    "create temporary table scratch (n int)",
    "set statement_timeout = '77s'",
    "select pg_advisory_lock(42)",
    "prepare mine as select 1",
    "listen channel",
)
LOOK = (
    "select count(*) from pg_class where relname = 'scratch' and relpersistence = 't'",
    "select count(*) from pg_settings where setting = '77000' and source = 'session'",
    "select count(*) from pg_locks where locktype = 'advisory' and objid = 42",
    "select count(*) from pg_prepared_statements where name = 'mine'",
    "select count(*) from pg_listening_channels()",
)


@pytest.fixture
def discarding(make_async):
    def make(**options):
        options.setdefault("pool_reset_on_return", "discard_all")
        return make_async(pool_size=1, max_overflow=0, **options)

    return make


async def left_behind(engine):
    async with engine.connect() as connection:
        for statement in MAKE:
            await connection.execute(text(statement))
        await connection.commit()
        pid = await connection.scalar(text("select pg_backend_pid()"))
    async with engine.connect() as connection:
        assert await connection.scalar(text("select pg_backend_pid()")) == pid
        return [await connection.scalar(text(statement)) for statement in LOOK]


def test_no_state_outlives_a_check_in(discarding):
    assert asyncio.run(left_behind(discarding())) == [0] * len(LOOK)


def test_without_it_all_of_it_does(discarding):
    engine = discarding(pool_reset_on_return="rollback")
    assert asyncio.run(left_behind(engine)) == [1] * len(LOOK)


def test_what_was_prepared_is_prepared_anew(discarding):
    engine = discarding()
    one = text("select cast(:n as integer) + 1")

    async def main():
        for n in range(12):  # psycopg prepares what it has seen five times
            async with engine.connect() as connection:
                for _ in range(8):
                    assert await connection.scalar(one, {"n": n}) == n + 1
        assert engine.pool.stats().discarded == {}

    asyncio.run(main())


def test_a_transaction_left_open_is_rolled_back_first(discarding, table, observer):
    engine = discarding()

    async def main():
        async with engine.connect() as connection:
            await connection.execute(text(f"insert into {table} values (1)"))
        async with engine.connect() as connection:
            count = text(f"select count(*) from {table}")
            assert await connection.scalar(count) == 0
        assert engine.pool.stats().discarded == {}

    asyncio.run(main())


def test_what_the_engine_and_its_listeners_have_set_is_set_again(discarding):
    engine = discarding(isolation_level="SERIALIZABLE")

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection, _record):
        cursor = connection.cursor()
        cursor.execute("set application_name = 'of a listener'")
        cursor.close()
        connection.commit()

    async def main():
        for _ in range(3):
            async with engine.connect() as connection:
                level = text("show transaction isolation level")
                assert await connection.scalar(level) == "serializable"
                name = text("show application_name")
                assert await connection.scalar(name) == "of a listener"

    asyncio.run(main())


def test_a_task_cancelled_while_it_is_discarded_costs_the_connection(discarding):
    engine = discarding()

    async def hold():
        async with engine.connect() as connection:
            await connection.execute(text("select 1"))

    async def main():
        for steps in range(12):
            task = asyncio.create_task(hold())
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            async with engine.connect() as connection:
                assert await connection.scalar(text("select 41 + 1")) == 42
        assert isinstance(engine.pool, poolproof.AsyncPool)

    asyncio.run(main())
