"""Rows about PgBouncer: what a real one says, and what its clients make of that.

Its last words before it closes a connection reach the application under psycopg alone,
which reads them where it finds the connection closed; psycopg2 and pg8000 meet the end
of the connection while they send. What it says while connecting reaches all of them.
"""

from __future__ import annotations

import contextlib
import time

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

import poolproof
from plugins.harm import Proxy, first_error
from plugins.rows import decided_by, row
from poolproof import Fault
from poolproof.drill.pooler import Pooler
from poolproof.drill.proxy import Proxy as StallingProxy
from poolproof.drill.target import Target

pytestmark = pytest.mark.slow

SELECT = sa.text("select 42")
SLOW = sa.text("select pg_sleep(3)")


def engine_of(pooler, driver="psycopg", **options):
    url = pooler.url.set(drivername=f"postgresql+{driver}")
    engine = sa.create_engine(url, poolclass=NullPool, **options)
    poolproof.guard(engine)
    return engine


@contextlib.contextmanager
def idle(pooler, driver="psycopg"):
    """Yield a connection that is in no transaction."""
    with engine_of(pooler, driver).connect() as connection:
        connection.execute(SELECT)
        connection.rollback()
        yield connection


def says(error, expected):
    assert decided_by(error) == expected
    assert expected.fault is Fault.POOLER


def behind(pg, port=None, user="postgres"):
    url = pg.url("psycopg2").set(port=port or pg.port, username=user)
    return Target.parse(url.render_as_string(hide_password=False))


def test_a_pooler_without_a_free_server_connection_says_so(pooler, events):
    running = pooler(default_pool_size=1, query_wait_timeout=2)
    with engine_of(running).connect() as holder, idle(running) as waiter:
        holder.execute(SELECT)
        error = first_error(lambda: waiter.execute(SELECT))
    says(error, row("class `08`", "has `query_wait_timeout`"))
    (event,) = events
    assert (event.sqlstate, event.verdict.cost) == ("08P01", "connection")


def test_a_pooler_whose_server_is_silent_gives_up_while_connecting(pg):
    with StallingProxy(behind(pg).address()) as proxy:
        proxy.stall()
        with Pooler(behind(pg, proxy.port), query_wait_timeout=1) as running:
            for driver in ("psycopg2", "psycopg"):
                error = first_error(engine_of(running, driver).connect)
                says(error, row("failed with `query_wait_timeout`"))


def test_a_full_pooler_refuses_clients(pooler):
    running = pooler(max_client_conn=1)
    with engine_of(running).connect():
        for driver in ("psycopg2", "psycopg"):
            error = first_error(engine_of(running, driver).connect)
            says(error, row("failed with `no more connections allowed`"))
        error = first_error(engine_of(running, "pg8000").connect)
        says(error, row("class `08`", "`no more connections allowed`"))


@pytest.mark.parametrize(
    ("setting", "begin", "expected"),
    [
        ("client_idle_timeout", False, row("has `client_idle_timeout`")),
        ("idle_transaction_timeout", True, row("has `idle transaction timeout`")),
    ],
)
def test_a_pooler_closes_who_idles(pooler, setting, begin, expected):
    running = pooler(**{setting: 1})
    with idle(running) as connection:
        if begin:
            connection.execute(SELECT)
        give_up = time.monotonic() + 20
        while running.command("SHOW CLIENTS")[0]["database"] != "pgbouncer":
            assert time.monotonic() < give_up
            time.sleep(0.02)
        error = first_error(lambda: connection.execute(SELECT))
    says(error, expected)


def test_a_pooler_ends_a_long_query(pooler):
    with idle(pooler(query_timeout=1)) as connection:
        says(first_error(lambda: connection.execute(SLOW)), row("has `query timeout`"))


def test_a_pooler_that_is_told_to_end_a_database_says_so(pooler):
    running = pooler(client_login_timeout=5)
    with idle(running) as connection:
        running.command("KILL drill")
        error = first_error(lambda: connection.execute(SELECT))
    says(error, row("has `database removed`"))


def test_a_pooler_that_lost_its_server_says_so(pg):
    proxy = Proxy((pg.host, pg.port))
    with (
        contextlib.closing(proxy),
        Pooler(behind(pg, proxy.port)) as running,
        idle(running) as connection,
    ):
        connection.execute(SELECT)
        proxy.cut()
        error = first_error(lambda: connection.execute(SELECT))
    says(error, row("has `server conn crashed?`"))


def test_a_pooler_that_cannot_reach_the_server_says_so_while_connecting(pg):
    proxy = Proxy((pg.host, pg.port))
    settings = {"client_login_timeout": 1, "server_login_retry": 1}
    with Pooler(behind(pg, proxy.port), **settings) as running:
        proxy.close()
        for driver, expected in (
            ("psycopg2", row("failed with `client_login_timeout`")),
            ("psycopg", row("failed with `client_login_timeout`")),
            ("pg8000", row("message has `client_login_timeout`")),
        ):
            says(first_error(engine_of(running, driver).connect), expected)


def test_a_pooler_that_cannot_log_in_says_so(pg, observer):
    observer.rows("drop role if exists leaver")
    observer.rows("create role leaver login")
    settings = {"query_wait_timeout": 1, "server_login_retry": 30}
    with Pooler(behind(pg, user="leaver"), **settings) as running:
        with idle(running) as connection:
            observer.rows("alter role leaver nologin")
            for (pid,) in observer.rows(
                "select pid from pg_stat_activity where usename = 'leaver'"
            ):
                observer.terminate(pid)
            first_error(lambda: connection.execute(SELECT))
        error = first_error(engine_of(running).connect)  # at SQLAlchemy's first query
    says(error, row("message has `server login has been failing`"))


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"])
def test_what_a_pooler_refuses_for_good_is_no_fault(pooler, driver, events):
    """A startup parameter that it does not know, as the `options` of libpq is."""
    refused = {"options": "-c statement_timeout=1000"}
    if driver == "pg8000":
        refused = {"startup_params": {"search_path": "x"}}
    error = first_error(engine_of(pooler(), driver, connect_args=refused).connect)
    assert "unsupported startup parameter" in str(error)
    assert events == []
    if driver == "pg8000":
        assert decided_by(error, phase="connect") == row("`08P01`", "connecting")
        assert poolproof.classify(error).fault is Fault.NONE
