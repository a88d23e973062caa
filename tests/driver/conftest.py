"""A server with extensions and prepared transactions, and connections to it."""

from __future__ import annotations

import asyncio
import contextlib

import psycopg
import pytest

import poolproof.driver
from plugins.cluster import Cluster
from plugins.debian_server import newest_binaries
from plugins.server import Observer, running
from poolproof.driver import aio


@pytest.fixture(scope="session")
def contrib_pg(cluster_templates):
    """Run Debian's PostgreSQL, which has hstore, with transactions in two phases."""
    settings = {"max_prepared_transactions": "8"}
    yield from running(Cluster(newest_binaries(), settings=settings))


@pytest.fixture(scope="session")
def looking(contrib_pg):
    """Look at that server from outside."""
    watching = Observer(contrib_pg)
    try:
        yield watching
    finally:
        watching.close()


@pytest.fixture(scope="session")
def dsn(contrib_pg):
    """Name that server, as libpq does."""
    url = contrib_pg.url("poolproof").set(drivername="postgresql")
    return url.render_as_string(hide_password=False)


@pytest.fixture
def connecting(dsn):
    """Open connections, which are closed at the end."""
    with contextlib.ExitStack() as stack:

        def connect(**keywords):
            opened = poolproof.driver.connect(dsn, **keywords)
            stack.callback(opened.close)
            return opened

        yield connect


@pytest.fixture
def connection(connecting):
    """Open a connection."""
    return connecting()


@pytest.fixture
def cursor(connection):
    """Make a cursor."""
    return connection.cursor()


@pytest.fixture
def other(dsn):
    """Open psycopg's connection to the same server, to compare with."""
    with psycopg.connect(dsn, autocommit=True) as opened:
        yield opened


@pytest.fixture
def in_step(connection):
    """Say how to tell that a connection answers questions, each with its own answer."""

    def check():
        connection.rollback()
        for number in (41, 42):
            assert connection.execute("select %s", [number]).fetchall() == [(number,)]
        connection.rollback()
        assert connection.info.transaction_status == 0

    return check


@pytest.fixture
def run(dsn):
    """Return a function that runs a test's coroutine with a connection of its own."""

    def run(main, **keywords):
        async def opened():
            connection = await aio.connect(dsn, **keywords)
            try:
                return await main(connection)
            finally:
                await connection.close()

        return asyncio.run(opened())

    return run
