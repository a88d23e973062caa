"""A stop flag in a database that answers, that hangs, and that comes back."""

from __future__ import annotations

import contextlib
import logging
import pickle
import time

import pytest
from sqlalchemy import create_engine, event, exc, text
from sqlalchemy.orm import scoped_session, sessionmaker
from sqlalchemy.pool import QueuePool

import poolproof
from poolproof.drill.proxy import Proxy
from poolproof.drill.target import Target
from poolproof.faults.table import Fault, register
from poolproof.integrations.stopping import StopFlag, StopRequested

pytestmark = pytest.mark.usefixtures("no_leaks")
# What a look may take on a busy machine, on top of its bound.
LATE_S = 5.0


@pytest.fixture
def proxied(pg_url, driver):
    """Return an engine whose server is behind a proxy, and the proxy."""
    url = pg_url(driver)
    target = Target.parse(url.render_as_string(hide_password=False))
    with Proxy(target.address()) as proxy, contextlib.ExitStack() as stack:
        through = url.set(host="127.0.0.1", port=proxy.port)
        engine = create_engine(through, poolclass=poolproof.Pool)
        stack.callback(engine.dispose)
        yield engine, proxy


def question(table):
    return f"select n from {table}"


def unhurried(engine, table):
    """Return in how many seconds the machine of now connects and asks ten times."""
    began = time.monotonic()
    with engine.connect() as connection:
        connection.execute(text(question(table)))
    engine.dispose()
    return max(0.3, 10 * (time.monotonic() - began))


def ask_to_stop(observer, table):
    observer.rows(f"insert into {table} values (1)")


def test_a_flag_is_what_the_database_says(pg_url, observer, table):
    engine = create_engine(pg_url("psycopg2"), poolclass=poolproof.Pool)
    flag = StopFlag(engine, question(table), every_s=0)
    assert not flag.is_set()
    flag.check()
    ask_to_stop(observer, table)
    assert flag.is_set()
    assert flag.reason == "asked"
    observer.rows(f"delete from {table}")
    assert flag.is_set(), "once set, it stays set"
    with pytest.raises(
        StopRequested, match="the flag in the database is set"
    ) as raised:
        flag.check()
    again = pickle.loads(pickle.dumps(raised.value))
    assert (again.reason, again.silent_s) == ("asked", 0.0)
    engine.dispose()


def test_between_two_looks_the_last_answer_counts(pg_url, observer, table):
    engine = create_engine(pg_url("psycopg2"), poolclass=poolproof.Pool)
    flag = StopFlag(engine, question(table), every_s=3600)
    assert not flag.is_set()
    ask_to_stop(observer, table)
    assert not flag.is_set()
    flag.set()
    assert flag.is_set()
    assert flag.reason == "set"
    engine.dispose()


# pg8000 leaves the socket of a failed attempt to the collector.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_look_at_a_database_that_hangs_ends(proxied, observer, table, caplog):
    engine, proxy = proxied
    bound = unhurried(engine, table)
    flag = StopFlag(
        engine, question(table), within_s=bound, every_s=0, unreachable_s=600
    )
    assert not flag.is_set()
    proxy.stall()
    for _ in range(2):  # a connection that hangs, then connecting
        began = time.monotonic()
        assert not flag.is_set(), "work that may go on goes on"
        assert time.monotonic() - began < bound + LATE_S
    assert flag.silent_s > bound
    warned = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert sum("cannot be read" in each.getMessage() for each in warned) == 1
    ask_to_stop(observer, table)
    proxy.resume(old=False)
    end = time.monotonic() + 20
    while not flag.is_set() and time.monotonic() < end:
        time.sleep(0.05)
    assert flag.reason == "asked"
    assert flag.silent_s == 0


@pytest.mark.parametrize("driver", ["psycopg2"])
def test_nobody_can_stop_work_for_too_long_so_it_stops(proxied, table):
    engine, proxy = proxied
    flag = StopFlag(engine, question(table), within_s=0.2, every_s=0, unreachable_s=0.5)
    proxy.stall()
    began = time.monotonic()
    while not flag.is_set() and time.monotonic() < began + 30:
        pass
    assert time.monotonic() - began >= 0.5
    with pytest.raises(StopRequested, match="could not be read for") as raised:
        flag.check()
    assert raised.value.reason == "unreachable"
    assert raised.value.silent_s >= 0.5


@pytest.mark.parametrize("driver", ["psycopg2"])
def test_an_answer_in_between_begins_the_count_anew(proxied, table):
    engine, proxy = proxied
    bound = unhurried(engine, table)
    flag = StopFlag(
        engine, question(table), within_s=bound, every_s=0, unreachable_s=None
    )
    for _ in range(2):
        proxy.stall()
        assert not flag.is_set()
        assert flag.silent_s > 0
        proxy.resume(old=False)
        end = time.monotonic() + 20
        while flag.silent_s and time.monotonic() < end:
            assert not flag.is_set()
        assert flag.silent_s == 0


def test_a_pool_that_is_exhausted_does_not_hold_the_work_up(pg_url, table):
    engine = create_engine(
        pg_url("psycopg2"), poolclass=poolproof.Pool, pool_size=1, max_overflow=0
    )
    flag = StopFlag(engine, question(table), within_s=0.2, every_s=0)
    with engine.connect():
        began = time.monotonic()
        assert not flag.is_set()
        assert time.monotonic() - began < 0.2 + LATE_S
        assert flag.silent_s > 0
    assert not flag.is_set()
    assert flag.silent_s == 0
    engine.dispose()


def test_a_wrong_question_is_an_error_and_no_silence(pg_url):
    engine = create_engine(pg_url("psycopg2"), poolclass=poolproof.Pool)
    flag = StopFlag(engine, "select n from not_there")
    with pytest.raises(exc.ProgrammingError):
        flag.is_set()
    assert flag.silent_s == 0
    engine.dispose()


def test_it_takes_sessions_and_refuses_what_could_not_be_bounded(pg_url):
    engine = create_engine(pg_url("psycopg2"), poolclass=poolproof.Pool)
    factory = sessionmaker(engine)
    with factory() as session:
        for source in (engine, factory, scoped_session(factory), session):
            flag = StopFlag(source, text("select :stop"), {"stop": True})
            assert flag.is_set()
    engine.dispose()
    plain = create_engine(pg_url("psycopg2"), poolclass=QueuePool)
    with pytest.raises(TypeError, match=r"poolproof\.Pool, not with QueuePool"):
        StopFlag(plain, "select true")
    with pytest.raises(TypeError, match="not str"):
        StopFlag("engine", "select true")
    with pytest.raises(ValueError, match="within_s is 0, but must be more than 0"):
        StopFlag(engine, "select true", within_s=0)
    with pytest.raises(ValueError, match="unreachable_s is -1"):
        StopFlag(engine, "select true", unreachable_s=-1)


def test_a_time_limit_in_a_look_is_no_silence(pg_url, caplog):
    """Celery's soft limit is an ordinary exception, and comes once."""

    class LimitError(Exception):
        """Stands for SoftTimeLimitExceeded."""

    def interrupt(*_):
        raise LimitError

    forget = register(Fault.INTERRUPTED, exception=LimitError)
    engine = create_engine(pg_url("psycopg2"), poolclass=poolproof.Pool)
    event.listen(engine, "before_cursor_execute", interrupt)
    flag = StopFlag(engine, "select 0")
    try:
        with pytest.raises(LimitError):
            flag.is_set()
    finally:
        forget()
    assert "stop flag" not in caplog.text
    assert flag.silent_s == 0
    engine.dispose()
