"""A soft time limit that passes while a fault is noted reaches whom it is meant for.

Its exception is an ordinary one, raised by the handler of a signal between any two
bytecodes: those of the package's own that log what goes wrong in them, too.
"""

from __future__ import annotations

import os
import signal

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

import poolproof
from poolproof.pool import took


class Limit(Exception):  # noqa: N818 - as billiard's SoftTimeLimitExceeded
    """What the handler raises."""


@pytest.fixture
def passes():
    """Return a function in which the limit passes."""

    def handler(number, frame):
        raise Limit

    old = signal.signal(signal.SIGUSR1, handler)
    yield lambda *_: os.kill(os.getpid(), signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, old)


class Statement:
    """One that the limit passes at when it is written into the journal."""

    def __init__(self, passes):
        self._passes = passes

    def __str__(self):
        self._passes()
        return "select 1"


@pytest.fixture
def engine(make_engine):
    return make_engine(
        "psycopg2",
        poolclass=poolproof.Pool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=60,
    )


def use(engine):
    with engine.connect() as connection:
        return connection.scalar(text("select 1"))


def kill_and_use(engine):
    """Lose a connection in the middle of its use."""
    with engine.connect() as connection:
        pid = connection.connection.driver_connection.info.backend_pid
        end(engine, pid)
        connection.execute(text("select 2"))


def end(engine, pid):
    import psycopg2

    url = engine.url.set(drivername="postgresql")
    observer = psycopg2.connect(url.render_as_string(hide_password=False))
    with observer.cursor() as cursor:
        cursor.execute("select pg_terminate_backend(%s, 60000)", (pid,))
    observer.close()


def test_one_that_passes_while_a_discard_is_noted(engine, passes):
    assert use(engine) == 1
    (entry,) = engine.pool.entries()
    entry.statements.append(Statement(passes))
    with pytest.raises(Limit):
        kill_and_use(engine)
    # The connection was ended all the same, and its place is free.
    assert engine.pool.stats().in_use == 0
    assert use(engine) == 1


def test_one_that_passes_in_a_listener_of_faults(engine, passes):
    assert use(engine) == 1
    remove = poolproof.on_fault(passes)
    try:
        with pytest.raises(Limit) as caught:
            kill_and_use(engine)
    finally:
        remove()
    assert "server closed" in str(caught.value.__cause__) or "terminat" in str(
        caught.value.__cause__
    )
    assert engine.pool.stats().in_use == 0
    assert use(engine) == 1


def test_one_that_passes_while_it_is_told_how_long_connecting_took(engine, passes):
    remove = took.listeners.add(passes)
    try:
        with pytest.raises(Limit):
            use(engine)
    finally:
        remove()
    assert engine.pool.stats().in_use == 0
    assert use(engine) == 1


def test_one_that_passes_in_a_listener_of_attempts(engine, passes):
    remove = poolproof.on_attempt(passes)
    try:
        with pytest.raises(Limit):
            poolproof.run_transaction(engine, lambda _: None)
    finally:
        remove()
    assert use(engine) == 1


def test_what_a_listener_raises_by_itself_is_logged_as_before(engine, caplog):
    def fails(_):
        raise Limit

    remove = poolproof.on_fault(fails)
    try:
        with pytest.raises(OperationalError):
            kill_and_use(engine)
    finally:
        remove()
    assert "a listener of poolproof.on_fault failed" in caplog.text
