"""What a peer that has gone makes a driver raise, and what it leaves behind."""

from __future__ import annotations

import contextlib
import gc
import signal
import time
import weakref

import pg8000
import pytest
from sqlalchemy import create_engine, exc, text

import poolproof
from plugins.threads import Task
from poolproof.drivers import known


@pytest.mark.parametrize("verb", ["execute", "commit", "rollback"])
def test_a_reset_is_a_disconnect_like_any_other(proxied, link, verb):
    """pg8000 lets the system's own error through where it begins to read."""
    engine = proxied()
    with engine.connect() as connection:
        connection.execute(text("select 1"))
        only = link()
        only.stall()
        ender = Task(lambda: (time.sleep(0.2), only.reset()))
        question = (text("select 2"),) if verb == "execute" else ()
        with pytest.raises(exc.DBAPIError) as caught:
            getattr(connection, verb)(*question)
        ender.result()
    assert caught.value.connection_invalidated
    assert engine.pool.stats().discarded == {"connection_lost": 1}
    assert engine.pool.checkedout() == 0


def test_a_reset_keeps_nothing_until_the_collector_comes():
    """It would close socket and file in any order, and complain on standard error."""

    class Reset:
        def read(self, _size):
            raise ConnectionResetError

    kept = []

    def read():
        end = Reset()
        kept.append(weakref.ref(end))
        pg8000.core._read(end, 5)

    dialect = create_engine("postgresql+pg8000://").dialect
    translated = known.by_name(dialect.driver).in_own_words(read, dialect)
    gc.disable()
    try:
        with contextlib.suppress(pg8000.InterfaceError):
            translated()
        assert [one() for one in kept] == [None]
    finally:
        gc.enable()


@pytest.mark.parametrize("driver", ["pg8000"], indirect=True)
def test_what_could_not_be_sent_is_dropped(make_engine, pg_url, driver):
    """Collected with that in it, the file would complain on standard error."""
    engine = make_engine(pg_url(driver))
    with engine.connect() as connection:
        file = connection.connection.driver_connection._sock
        with poolproof.deadline(0.2), pytest.raises(exc.DBAPIError):
            connection.execute(text("select pg_sleep(2)"))
    assert file.closed


def too_long(_signal, _frame):
    raise TimeoutError


def too_long_and_tidy(number, frame):
    del number, frame  # unused
    raise TimeoutError


@pytest.mark.parametrize("driver", ["psycopg", "pg8000"], indirect=True)
@pytest.mark.parametrize("handler", [too_long, too_long_and_tidy])
def test_what_a_handler_raises_stays_what_it_is(make_engine, pg_url, driver, handler):
    engine = make_engine(pg_url(driver))
    before = signal.signal(signal.SIGALRM, handler)
    try:
        with engine.connect() as connection:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(TimeoutError):
                connection.execute(text("select pg_sleep(5)"))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
