"""Leases beside what else the package has, and in asyncio."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

import poolproof
from poolproof import Lease, LeaseLost


def test_a_unit_that_is_repeated_is_guarded_each_time(engine, name):
    with Lease(engine, name) as lease:

        def unit(connection):
            lease.guard(connection)
            return connection.scalar(text("select 7"))

        assert poolproof.run_transaction(engine, unit) == 7


def test_a_loss_is_not_repeated(engine, name, observer):
    calls = []
    lease = Lease(engine, name, ttl=600).acquire()
    observer.rows("delete from poolproof_lease where name = %s", name)

    def unit(connection):
        calls.append(connection)
        lease.guard(connection)

    with pytest.raises(LeaseLost):
        poolproof.run_transaction(engine, unit)
    lease.release()
    assert len(calls) == 1


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_every_isolation_level_can_be_guarded(engine, name, level):
    options = {"isolation_level": level}
    with (
        Lease(engine, name) as lease,
        engine.connect().execution_options(**options) as connection,
    ):
        lease.guard(connection)
        connection.commit()


def test_an_async_engine_will_do(pg, name):
    url = pg.url("asyncpg").set(query={})

    async def main():
        engine = create_async_engine(url)
        lease = Lease(engine, name)
        await asyncio.to_thread(lease.acquire)
        async with engine.begin() as connection:
            await connection.run_sync(lease.guard)
        lease.check()
        await asyncio.to_thread(lease.release)
        await engine.dispose()

    asyncio.run(main())
