"""The guard on async engines, which keep their own pool."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

import poolproof
from plugins.harm import message
from poolproof import Fault

SELECT = sa.text("select 42")
DRIVERS = ("psycopg", "asyncpg")


def run(pg, driver, action, port=None, **options):
    """Run an action on a guarded async engine with three connections that rest."""

    async def main():
        url = sa.URL.create(
            f"postgresql+{driver}",
            username="postgres",
            host=pg.host,
            port=port or pg.port,
            database="postgres",
        )
        engine = create_async_engine(url, pool_size=3, **options)
        poolproof.guard(engine)
        poolproof.guard(engine.sync_engine)
        try:
            return await action(engine)
        finally:
            await engine.dispose()

    return asyncio.run(main())


async def driver_connections(engine):
    opened = [await engine.connect() for _ in range(3)]
    found = [(await one.get_raw_connection()).driver_connection for one in opened]
    for one in opened:
        await one.close()
    return found


def common(before, after):
    return len({id(one) for one in before} & {id(one) for one in after})


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_cancelled_statement_costs_nothing(pg, driver, events):
    async def action(engine):
        before = await driver_connections(engine)
        async with engine.connect() as connection:
            await connection.execute(sa.text("set local statement_timeout = 20"))
            with pytest.raises(sa.exc.DBAPIError):
                await connection.execute(sa.text("select pg_sleep(5)"))
        return common(before, await driver_connections(engine))

    assert run(pg, driver, action) == 3
    (event,) = events
    assert (event.fault, event.sqlstate) == (Fault.CANCELLED, "57014")
    assert event.verdict.outcome == "not_done"
    assert event.backend_pid is not None


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_terminated_backend_costs_the_generation(pg, driver, observer, events):
    async def action(engine):
        before = await driver_connections(engine)
        async with engine.connect() as connection:
            pid = await connection.scalar(sa.text("select pg_backend_pid()"))
            observer.terminate(pid)
            with pytest.raises(sa.exc.DBAPIError):
                await connection.execute(SELECT)
        return pid, common(before, await driver_connections(engine))

    pid, kept = run(pg, driver, action)
    assert kept == 0
    (event,) = events
    assert event.fault in {Fault.TERMINATED, Fault.CONNECTION_LOST}
    assert (event.verdict.cost, event.backend_pid) == ("generation", pid)


def test_corruption_costs_exactly_the_one_connection(pg, proxy, events):
    async def action(engine):
        before = await driver_connections(engine)
        async with engine.connect() as connection:
            proxy.inject(message(b"Z", b"I"))
            with pytest.raises(sa.exc.DBAPIError):
                await connection.execute(SELECT)
        return common(before, await driver_connections(engine))

    assert run(pg, "psycopg", action, port=proxy.port) == 2
    (event,) = events
    assert (event.fault, event.verdict.cost) == (Fault.CORRUPTION, "connection")


@pytest.mark.parametrize("driver", DRIVERS)
def test_an_address_without_a_server_is_unreachable(pg, driver, proxy):
    # asyncpg lets the system's error through, which no handler ever sees.
    proxy.close()

    async def action(engine):
        with pytest.raises((sa.exc.OperationalError, OSError)) as raised:
            await engine.connect()
        return poolproof.classify(raised.value)

    verdict = run(pg, driver, action, port=proxy.port)
    assert (verdict.fault, verdict.outcome) == (Fault.UNREACHABLE, "not_done")
    assert (verdict.cost, verdict.retry) == ("nothing", "reconnect")


def test_a_unique_violation_costs_nothing(pg, observer, table, events):
    observer.rows(f"create unique index on {table} (n)")

    async def action(engine):
        before = await driver_connections(engine)
        async with engine.connect() as connection:
            insert = sa.text(f"insert into {table} values (1)")
            await connection.execute(insert)
            with pytest.raises(sa.exc.IntegrityError):
                await connection.execute(insert)
        return common(before, await driver_connections(engine))

    assert run(pg, "psycopg", action) == 3
    assert events == []
