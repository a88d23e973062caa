"""Connections over TLS: a goodbye of the child would end the parent's session."""

from __future__ import annotations

import gc

import pytest
from sqlalchemy import create_engine, text

import poolproof
from plugins.processes import run_in_fork
from plugins.server import DRIVERS


def is_encrypted(connection):
    return connection.scalar(
        text("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
    )


@pytest.fixture(params=DRIVERS)
def engine(request, debian_pg):
    """Make an engine whose connections are encrypted: the drivers ask for it."""
    engine = create_engine(debian_pg.url(request.param), poolclass=poolproof.Pool)
    yield engine
    engine.dispose()


@pytest.fixture
def debian_table(debian_observer):
    debian_observer.rows("create table tls (n integer)")
    yield "tls"
    debian_observer.rows("drop table tls")


def close(connection, engine):
    connection.close()


def drop(connection, engine):
    del connection
    gc.collect()


def dispose(connection, engine):
    engine.dispose()


@pytest.mark.parametrize("ending", [close, drop, dispose], ids=lambda it: it.__name__)
def test_a_child_says_no_goodbye_over_tls(
    engine, debian_table, debian_observer, ending
):
    engine.connect().close()
    connection = engine.connect()
    assert is_encrypted(connection)
    connection.execute(text(f"insert into {debian_table} values (1)"))
    backend = connection.scalar(text("select pg_backend_pid()"))

    def child():
        ending(connection, engine)
        with engine.connect() as own:
            assert is_encrypted(own)
            return own.scalar(text("select pg_backend_pid()"))

    assert run_in_fork(child).assert_silent().result != backend
    connection.execute(text(f"insert into {debian_table} values (2)"))
    connection.commit()
    connection.close()
    assert debian_observer.value(f"select count(*) from {debian_table}") == 2


def test_a_cursor_over_tls_ends_in_the_drivers_own_error(engine):
    raw = engine.raw_connection()
    cursor = raw.cursor()
    cursor.execute("select 1")

    def child():
        try:
            cursor.execute("select 2")
        except (engine.dialect.loaded_dbapi.Error, OSError):
            return "refused"
        return "answered"

    assert run_in_fork(child).result == "refused"
    cursor.execute("select 3")
    assert list(cursor.fetchone()) == [3]
    cursor.close()
    raw.close()
