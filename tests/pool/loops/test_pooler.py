"""Drivers behind PgBouncer in transaction mode, and nothing said of statements."""

from __future__ import annotations

import asyncio
import random

import pytest
from sqlalchemy import JSON, Column, Integer, MetaData, Table, insert, select, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

import poolproof

SERVERS = 3


@pytest.fixture(params=["asyncpg", "psycopg"])
def prepares(request):
    """Name a driver that prepares what it is asked."""
    return request.param


@pytest.fixture(params=["installed", "fetched"])
def behind(request, prepares, observer):  # which looks for what is left behind
    """Name a PgBouncer that has fewer sessions than there are clients: 1.18, 1.26."""
    names = {"installed": "pooler", "fetched": "telling_pooler"}
    start = request.getfixturevalue(names[request.param])
    settings = {"max_prepared_statements": 0} if request.param == "fetched" else {}
    started = start(
        pool_mode="transaction",
        default_pool_size=SERVERS,
        max_client_conn=100,
        **settings,
    )
    return started.url.set(drivername=f"postgresql+{prepares}", query={})


async def ask(engine, number, wrong):
    """Ask many things as one client, each in a transaction."""
    chance = random.Random(number)  # noqa: S311 - no secret
    for step in range(40):
        value = number * 1000 + step
        try:
            async with engine.connect() as connection:
                for _ in range(chance.randrange(1, 4)):
                    asked = text(f"select cast(:n as int), {chance.randrange(2)}")
                    row = (await connection.execute(asked, {"n": value})).one()
                    if row[0] != value:
                        wrong.append(row)
        except Exception as error:
            wrong.append(error)


async def served(engine):
    wrong = []
    await asyncio.gather(*(ask(engine, number, wrong) for number in range(6)))
    await engine.dispose()
    return wrong


def test_each_task_gets_its_own_answers(behind):
    engine = create_async_engine(behind, poolclass=poolproof.AsyncPool, pool_size=6)
    assert asyncio.run(served(engine)) == []


def test_with_sqlalchemys_pool_names_meet(behind, prepares):
    if prepares == "psycopg":
        pytest.skip("it needs many at once: the next test fails where it prepares")
    engine = create_async_engine(behind, poolclass=AsyncAdaptedQueuePool, pool_size=6)
    assert asyncio.run(served(engine)) != []


def test_many_at_once_and_codecs_work_as_well(behind, table):
    engine = create_async_engine(behind, poolclass=poolproof.AsyncPool, pool_size=4)
    things = Table(
        f"{table}_json", MetaData(), Column("n", Integer), Column("thing", JSON)
    )

    async def work(number):
        rows = [{"n": number, "thing": {"k": [number, k]}} for k in range(5)]
        for _ in range(5):
            async with engine.begin() as connection:
                await connection.execute(insert(things), rows)
        async with engine.connect() as connection:
            asked = select(things.c.thing).where(things.c.n == number)
            found = (await connection.scalars(asked)).all()
            assert len(found) == 25
            assert all(thing["k"][0] == number for thing in found)

    async def main():
        async with engine.begin() as connection:
            await connection.run_sync(things.create)
        try:
            await asyncio.gather(*(work(number) for number in range(4)))
        finally:
            async with engine.begin() as connection:
                await connection.run_sync(things.drop)
            await engine.dispose()

    asyncio.run(main())


def test_without_a_pooler_statements_are_kept(make_async, async_driver):
    if async_driver == "poolproof":
        pytest.skip("it hears from the server itself")
    engine = make_async()

    async def main():
        async with engine.connect() as connection:
            await connection.scalar(text("select 1"))
            adapter = (await connection.get_raw_connection()).dbapi_connection
            if async_driver == "asyncpg":
                assert len(adapter._prepared_statement_cache) > 0
            else:
                assert adapter.driver_connection.prepare_threshold == 5
        await engine.dispose()

    asyncio.run(main())
