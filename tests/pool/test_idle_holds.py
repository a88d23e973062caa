"""`idle_hold_warning` and `idle_hold_timeout`: held, and nothing goes on."""

from __future__ import annotations

import logging
import random
import threading
import time

import pytest
from sqlalchemy import exc, text

import poolproof
from plugins.threads import Task, eventually

SLEEPS = text("select pg_sleep(1.5)")


def warnings_of(caplog):
    said = [record.getMessage() for record in caplog.records]
    return [one for one in said if "has had no statement under way" in one]


def test_one_who_waits_for_others_is_warned_of_once_with_the_stack(
    make_engine, pg_url, driver, caplog
):
    engine = make_engine(pg_url(driver), idle_hold_warning=0.2)
    with engine.connect() as connection:
        connection.execute(text("select 1"))
        eventually(lambda: warnings_of(caplog))
        time.sleep(0.5)
        connection.execute(text("select 1"))  # the holder goes on
        time.sleep(0.5)
    (said,) = warnings_of(caplog)
    assert "with engine.connect() as connection" in said
    assert "backend pid" in said


def test_one_who_waits_for_others_is_shut_and_told_so(
    make_engine, pg_url, driver, observer
):
    engine = make_engine(pg_url(driver), idle_hold_timeout=0.3)
    with engine.connect() as connection:
        connection.execute(text("select 1"))
        observer.wait_for_backends(1)
        observer.wait_for_backends(0)  # the server has seen the end
        with pytest.raises(exc.DBAPIError) as caught:
            connection.execute(text("select 1"))
    cause = caught.value.orig.__cause__
    assert isinstance(cause, poolproof.DeadlineExceeded)
    assert (cause.step, cause.limit) == ("idle_hold", 0.3)
    assert "with no statement under way" in str(cause)
    assert engine.pool.stats().discarded == {"idle_hold_timeout": 1}
    with engine.connect() as connection:
        assert connection.scalar(text("select 1")) == 1


@pytest.mark.parametrize("unix", [False, True])
def test_a_long_statement_is_none_that_waits_for_others(
    make_engine, pg_url, driver, caplog, unix
):
    engine = make_engine(
        pg_url(driver, unix=unix), idle_hold_warning=0.3, idle_hold_timeout=0.5
    )
    with engine.connect() as connection:
        connection.execute(SLEEPS)
        assert connection.scalar(text("select 1")) == 1
    assert not warnings_of(caplog)
    assert engine.pool.stats().discarded == {}


@pytest.fixture
def slow_commits(observer, table):
    """Have a commit into the table take more than a second."""
    function = f"slow_{table}"
    observer.rows(
        f"create function {function}() returns trigger language plpgsql as "
        "$$ begin perform pg_sleep(1.2); return null; end $$"
    )
    observer.rows(
        f"create constraint trigger slow after insert on {table} deferrable "
        f"initially deferred for each row execute function {function}()"
    )
    yield table
    observer.rows(f"drop function {function} cascade")


def test_neither_is_a_commit_that_waits(make_engine, pg_url, driver, slow_commits):
    engine = make_engine(pg_url(driver), idle_hold_timeout=0.4)
    with engine.begin() as connection:
        connection.execute(text(f"insert into {slow_commits} values (1)"))
    assert engine.pool.stats().discarded == {}


def test_neither_is_a_raw_cursor_over_tcp(make_engine, pg_url, driver):
    engine = make_engine(pg_url(driver), idle_hold_timeout=0.5)
    fairy = engine.raw_connection()
    cursor = fairy.cursor()
    if driver != "pg8000":  # which does not say that one is under way
        cursor.execute("select pg_sleep(1.5)")
        cursor.fetchall()
    until = time.monotonic() + 1.5
    while time.monotonic() < until:  # short ones, which a look may well miss
        cursor.execute("select 1")
        cursor.fetchall()
        time.sleep(0.05)
    cursor.close()
    fairy.close()
    assert engine.pool.stats().discarded == {}


def test_a_transaction_that_is_open_is_no_statement(make_engine, pg_url, driver, table):
    engine = make_engine(pg_url(driver), idle_hold_timeout=0.3)
    with engine.connect() as connection:
        connection.execute(text(f"insert into {table} values (1)"))
        eventually(lambda: connection.connection._connection_record.exceeded())
        with pytest.raises(exc.DBAPIError):
            connection.execute(text("select 1"))
    with engine.connect() as connection:
        assert connection.scalar(text(f"select count(*) from {table}")) == 0


def test_only_who_has_held_for_so_long_is_shut(make_engine, pg_url, driver):
    limit = 0.1
    engine = make_engine(pg_url(driver), pool_size=2, idle_hold_timeout=limit)
    done = threading.Event()

    def work():
        pauses = random.Random()  # noqa: S311 - no secret
        times, shut = 0, []
        while not done.is_set():
            began = time.monotonic()
            try:
                with engine.connect() as connection:
                    connection.execute(text("select 1"))
                    time.sleep(pauses.uniform(0, 2 * limit))
                    connection.execute(text("select 1"))
            except exc.DBAPIError:
                shut.append(time.monotonic() - began)
            times += 1
        return times, shut

    tasks = [Task(work) for _ in range(4)]
    time.sleep(3)
    done.set()
    for task in tasks:
        times, shut = task.result()
        assert times
        assert all(held >= limit for held in shut)


def test_without_the_knobs_statements_are_not_noted(make_engine, pg_url, driver):
    engine = make_engine(pg_url(driver))
    with engine.connect() as connection:
        connection.execute(text("select 1"))
        assert connection.connection._connection_record.held is None
    assert not hasattr(engine.dialect.do_commit, "is_noted")


def test_a_pool_that_was_made_by_hand_has_them_as_well(socket_dbapi, caplog):
    pool = poolproof.Pool(
        socket_dbapi.connect, idle_hold_warning=0.05, idle_hold_timeout=0.1
    )
    with pool.connect() as fairy:
        eventually(lambda: warnings_of(caplog))
        eventually(lambda: fairy._connection_record.exceeded())
    assert pool.stats().discarded == {"idle_hold_timeout": 1}
    pool.dispose()


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"idle_hold_warning": 2, "idle_hold_timeout": 2}, "idle_hold_warning is 2"),
        ({"idle_hold_timeout": 5, "hold_timeout": 2}, "idle_hold_timeout is 5"),
        ({"idle_hold_timeout": 0}, "idle_hold_timeout is 0"),
        ({"idle_hold_warning": "5"}, "idle_hold_warning is '5'"),
    ],
)
def test_wrong_values_are_refused(values, named):
    with pytest.raises(exc.ArgumentError, match=named):
        poolproof.Pool(lambda: None, **values)


def test_the_log_names_the_pool(make_engine, pg_url, caplog):
    engine = make_engine(
        pg_url("psycopg2"), idle_hold_warning=0.1, pool_logging_name="shop"
    )
    with caplog.at_level(logging.WARNING), engine.connect():
        eventually(lambda: warnings_of(caplog))
    assert "of pool shop" in warnings_of(caplog)[0]
