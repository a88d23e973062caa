"""What each driver's object says of a real connection, wrapped or not."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import types
from contextlib import closing
from unittest import mock

import psycopg
import psycopg2.extensions
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from poolproof.drivers import known
from poolproof.drivers.other import Mock, OtherDatabase

ASYNC = ("asyncpg", "psycopg")


class Wrapped:
    """A connection as a tracer wraps it."""

    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)


@pytest.fixture
def engine(pg_url, driver):
    return sa.create_engine(pg_url(driver), poolclass=NullPool)


@pytest.mark.parametrize("name", ["psycopg2", "psycopg", "pg8000", "asyncpg"])
def test_driver_is_known_by_the_name_that_its_dialect_has(name):
    dialect = sa.make_url(f"postgresql+{name}://").get_dialect()
    assert known.by_name(dialect.driver).name == name


def test_driver_of_another_database_is_not_known_by_name():
    assert known.by_name("pysqlite") is None


@pytest.mark.parametrize(
    "wrap", [lambda found: found, Wrapped], ids=["bare", "wrapped"]
)
def test_object_of_a_driver_knows_its_connection(engine, driver, wrap):
    with engine.connect() as connection:
        pid = connection.scalar(sa.text("select pg_backend_pid()"))
        connection.rollback()
        raw = wrap(connection.connection.driver_connection)
        found = known.of(raw, None)
        assert found.name == driver
        assert found.status(raw) == found.idle
        assert not found.is_closed(raw)
        assert not found.is_busy(raw)
        assert not found.is_suspended(raw)
        assert found.backend_pid(raw) == pid
        assert found.setting(raw, "server_encoding") == "UTF8"
        with closing(socket.socket(fileno=found.descriptor(raw))) as same:
            assert same.getpeername()
            same.detach()
        connection.execute(sa.text("select 1"))
        assert found.status(raw) != found.idle
        connection.rollback()
        assert found.ask(raw)


def test_failed_transaction_is_seen(engine, driver):
    with engine.connect() as connection:
        raw = connection.connection.driver_connection
        found = known.of(raw, None)
        with pytest.raises(sa.exc.DBAPIError):
            connection.execute(sa.text("select 1 / 0"))
        assert found.status(raw) == found.failed


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"], indirect=True)
def test_status_that_each_checkout_asks_runs_nothing_of_python(engine, driver):
    with engine.connect() as connection:
        raw = connection.connection.driver_connection
        pythons = (types.FunctionType, types.MethodType)
        assert not isinstance(known.of(raw, None).status, pythons)
        assert known.of(raw, None) is known.of(raw, engine.dialect)


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"], indirect=True)
def test_rollback_that_would_do_nothing_is_known(engine, driver):
    with engine.connect() as connection:
        raw = connection.connection.driver_connection
        raw.rollback()
        found = known.of(raw, None)
        assert found.is_reset(raw)
        # A tracer hears of every rollback.
        assert known.of(Wrapped(raw), None).is_reset is None
        with closing(raw.cursor()) as cursor:
            cursor.execute("select 1")
            cursor.execute("commit")
        assert found.status(raw) == found.idle
        # psycopg2 takes the transaction for open, and would not begin the next.
        assert found.is_reset(raw) == (driver == "psycopg")
        raw.rollback()
        assert found.is_reset(raw)


def test_rollback_of_a_subclass_is_its_own(pg_url):
    class Psycopg(psycopg.Connection):
        def rollback(self):
            super().rollback()

    class Psycopg2(psycopg2.extensions.connection):
        def rollback(self):
            super().rollback()

    url = pg_url("psycopg").set(drivername="postgresql")
    text = url.render_as_string(hide_password=False)
    with closing(Psycopg.connect(text)) as raw:
        assert known.of(raw, None).is_reset is None
        with raw.transaction():
            assert not known.Psycopg(locks=True, is_own=True).is_reset(raw)
    with closing(psycopg2.connect(text, connection_factory=Psycopg2)) as raw:
        assert known.of(raw, None).is_reset is None


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"], indirect=True)
def test_closed_connection_is_seen(engine, driver):
    connection = engine.raw_connection()
    raw = connection.driver_connection
    raw.close()
    assert known.of(raw, None).is_closed(raw)
    connection.invalidate()


@pytest.mark.parametrize("driver", ASYNC)
def test_connection_for_asyncio_is_known(pg_url, driver):
    # asyncpg takes application_name among its server_settings alone.
    url = pg_url(driver)._replace(query={}) if driver == "asyncpg" else pg_url(driver)

    async def story():
        engine = create_async_engine(url, poolclass=NullPool)
        async with engine.connect() as connection:
            pid = await connection.scalar(sa.text("select pg_backend_pid()"))
            raw = (await connection.get_raw_connection()).driver_connection
            found = known.of(raw, None)
            assert found.name == driver
            assert found.backend_pid(raw) == pid
            assert found.setting(raw, "server_encoding") == "UTF8"
            assert not found.is_closed(raw)
            assert not found.is_busy(raw)
        await engine.dispose()

    asyncio.run(story())


def test_mock_is_no_driver_whatever_it_answers():
    found = known.of(mock.MagicMock(), None)
    assert isinstance(found, Mock)
    assert found.descriptor(mock.MagicMock()) is None
    assert not found.is_closed(mock.MagicMock())


def test_another_database_is_asked_nothing():
    with closing(sqlite3.connect(":memory:")) as raw:
        found = known.of(raw, sa.make_url("sqlite://").get_dialect()())
        assert isinstance(found, OtherDatabase)
        assert not found.must_ask
        assert found.descriptor(raw) is None
