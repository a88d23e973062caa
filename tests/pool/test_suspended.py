"""A connection in the middle of a stream or a COPY comes back without a wait."""

from __future__ import annotations

import gc
import time

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from plugins.wire import SOON, Stopwatch, backend

pytestmark = pytest.mark.parametrize("driver", ["psycopg"], indirect=True)

ROWS = "select repeat('x', 1000) from generate_series(1, 20000)"


def stream(cursor):
    suspended = cursor.stream(ROWS)
    next(suspended)
    return suspended


def copy_out(cursor):
    suspended = cursor.copy(f"copy ({ROWS}) to stdout")
    suspended.__enter__().read()
    return suspended


def copy_in(cursor):
    cursor.execute("create temporary table t (n integer)")
    suspended = cursor.copy("copy t from stdin")
    suspended.__enter__().write("1\n")
    return suspended


def notifies(cursor):
    """Suspend what listens; the session is idle then, but the driver's lock is held."""
    connection = cursor.connection
    connection.execute("select 1")
    connection.commit()
    connection.execute("listen rung")
    connection.execute("notify rung")
    connection.commit()
    suspended = connection.notifies(timeout=SOON)
    next(suspended)
    return suspended


KINDS = pytest.mark.parametrize("suspend", [stream, copy_out, copy_in, notifies])


@pytest.fixture(autouse=True)
def _silent(caplog):
    yield
    for record in caplog.records:
        assert record.levelname in {"DEBUG", "INFO"}, record.getMessage()


@KINDS
@pytest.mark.parametrize("level", ["READ COMMITTED", "AUTOCOMMIT"])
def test_checkin_in_the_middle_severs(make_engine, pg_url, driver, suspend, level):
    engine = make_engine(pg_url(driver))
    with Stopwatch() as watch:
        with engine.connect() as connection:
            connection.execution_options(isolation_level=level)
            pid = connection.scalar(text("select pg_backend_pid()"))
            held = suspend(connection.connection.cursor())
        assert backend(engine) != pid
    assert watch.seconds < SOON / 2
    assert engine.pool.stats().discarded == {"in_transaction": 1}
    del held
    gc.collect()  # what was suspended ends without a word


@KINDS
def test_rollback_of_a_session_in_the_middle_severs(
    make_engine, pg_url, driver, suspend
):
    engine = make_engine(pg_url(driver))
    with Stopwatch() as watch, Session(engine) as session:
        held = suspend(session.connection().connection.cursor())
        session.rollback()
        session.scalar(text("select 1"))
    assert watch.seconds < SOON / 2
    del held


@KINDS
def test_raw_connection_that_is_collected_in_the_middle(
    make_engine, pg_url, driver, suspend
):
    engine = make_engine(pg_url(driver))
    raw = engine.raw_connection()
    held = suspend(raw.cursor())
    with Stopwatch() as watch:
        raw.close()
    assert watch.seconds < SOON / 2
    assert backend(engine)
    del held


@KINDS
def test_checkin_that_commits_severs_as_well(make_engine, pg_url, driver, suspend):
    engine = make_engine(pg_url(driver), pool_reset_on_return="commit")
    raw = engine.raw_connection()
    held = suspend(raw.cursor())
    with Stopwatch() as watch:
        raw.close()
    assert watch.seconds < SOON / 2
    assert backend(engine)
    del held


@KINDS
@pytest.mark.parametrize("options", [{"reset_timeout": None}, {}])
def test_no_bound_is_needed(make_engine, pg_url, driver, suspend, options, observer):
    engine = make_engine(
        pg_url(driver),
        pool_reset_on_return="rollback",
        **{f"{name}": value for name, value in options.items()},
    )
    raw = engine.raw_connection()
    pid = raw.dbapi_connection.info.backend_pid
    held = suspend(raw.cursor())
    raw.close()
    until = time.monotonic() + SOON
    while pid in observer.backends() and time.monotonic() < until:
        time.sleep(0.01)
    assert pid not in observer.backends()
    del held


@KINDS
def test_detached_connection_is_not_waited_for(make_engine, pg_url, driver, suspend):
    engine = make_engine(pg_url(driver))
    connection = engine.connect()
    connection.begin()
    connection.detach()
    held = suspend(connection.connection.cursor())
    with Stopwatch() as watch:
        connection.close()
    assert watch.seconds < SOON / 2
    del held


def test_checkin_of_what_waits_for_notifications_without_a_reset(
    make_engine, pg_url, driver
):
    engine = make_engine(pg_url(driver), pool_reset_on_return=None)
    raw = engine.raw_connection()
    held = notifies(raw.cursor())
    with Stopwatch() as watch:
        raw.close()
        assert backend(engine)
    assert watch.seconds < SOON / 2
    assert engine.pool.stats().discarded == {"in_transaction": 1}
    del held


# --- a pipeline -----------------------------------------------------------------------


@pytest.mark.parametrize("reset", ["rollback", "commit", None, "discard_all"])
@pytest.mark.parametrize("is_used", [True, False])
def test_pipeline_that_was_not_left_reaches_no_other(
    make_engine, pg_url, driver, reset, is_used
):
    engine = make_engine(pg_url(driver), pool_reset_on_return=reset)
    raw = engine.raw_connection()
    pid = raw.dbapi_connection.info.backend_pid
    held = raw.dbapi_connection.pipeline()
    held.__enter__()
    if is_used:
        raw.cursor().execute("select 1")
    with Stopwatch() as watch:
        raw.close()
        assert backend(engine) != pid
    assert watch.seconds < SOON / 2
    with engine.connect() as connection:
        assert connection.execute(text("select 1")).all() == [(1,)]
    del held
    gc.collect()


def test_rollback_within_a_pipeline_is_one(make_engine, pg_url, driver):
    """In the middle of commands as well, and nobody is suspended there."""
    engine = make_engine(pg_url(driver))
    raw = engine.raw_connection()
    pid = raw.dbapi_connection.info.backend_pid
    with raw.dbapi_connection.pipeline():
        raw.cursor().execute("create table piped (n integer)")
        engine.dialect.do_rollback(raw)
        cursor = raw.cursor()
        cursor.execute("select to_regclass('piped')")
        assert cursor.fetchone() == (None,)
        engine.dialect.do_rollback(raw)
    raw.close()
    assert backend(engine) == pid
    assert engine.pool.stats().discarded == {}
