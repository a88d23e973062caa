"""What PostgreSQL's own log says of a connection that was discarded."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, exc, text

import poolproof
from plugins.threads import eventually


@pytest.fixture
def engine(pg_url):
    made = create_engine(
        pg_url("psycopg2"),
        poolclass=poolproof.Pool,
        pool_reset_on_return=None,
        isolation_level="AUTOCOMMIT",
    )
    yield made
    made.dispose()


def pid_of(connection):
    return connection.scalar(text("select pg_backend_pid()"))


def said_of(pid, pg, observer):
    """Return what the log says of a session, once that has ended."""
    eventually(lambda: pid not in observer.backends())
    lines = pg.log.read_text().splitlines()
    return [line.split("LOG:  ")[1] for line in lines if f"[{pid}] LOG:  " in line]


END_OF_FILE = ["unexpected EOF on client connection with an open transaction"]


def test_a_leak_that_is_discarded_in_its_transaction_is_one_line(pg, engine, observer):
    with engine.connect() as connection:
        pid = pid_of(connection)
        connection.execute(text("begin"))  # and the reset is off
    assert engine.pool.stats().discarded == {"in_transaction": 1}
    assert said_of(pid, pg, observer) == END_OF_FILE


def test_a_statement_that_runs_out_of_time_is_one_line(pg, engine, observer):
    with engine.connect() as connection:
        pid = pid_of(connection)
        connection.execute(text("begin"))
        with pytest.raises(exc.OperationalError), poolproof.deadline(0.1):
            connection.execute(text("select pg_sleep(0.4)"))
    assert said_of(pid, pg, observer) == END_OF_FILE


def test_a_connection_that_is_discarded_at_rest_is_no_line(pg, engine, observer):
    with engine.connect() as connection:
        pid = pid_of(connection)
        connection.invalidate()
    assert said_of(pid, pg, observer) == []
