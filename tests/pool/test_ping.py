"""When the server is asked, what is compared, and how long that may take."""

from __future__ import annotations

import signal
import time

import pytest
from sqlalchemy import event, exc

from plugins.wire import SOON, Stopwatch, answer, await_message, backend, message
from poolproof.drivers import known
from poolproof.drivers.base import Driver

LIBPQ = pytest.mark.parametrize("driver", ["psycopg2", "psycopg"], indirect=True)


@LIBPQ
def test_connection_in_use_is_not_asked(make_engine, pg_url, driver, statements):
    engine = make_engine(pg_url(driver), ping_idle_after=60)
    asked = statements(engine)
    for _ in range(5):
        backend(engine)
    assert asked() == 0


@LIBPQ
def test_pre_ping_true_means_what_is_done_anyway(
    make_engine, pg_url, driver, statements
):
    engine = make_engine(pg_url(driver), ping_idle_after=60, pool_pre_ping=True)
    asked = statements(engine)
    for _ in range(5):
        backend(engine)
    assert asked() == 0


def test_pre_ping_always_asks_each_time(make_engine, pg_url, driver, statements):
    engine = make_engine(pg_url(driver), pool_pre_ping="always")
    asked = statements(engine)
    for _ in range(5):
        backend(engine)
    assert asked() == 4  # a new connection has just answered


@LIBPQ
def test_connection_that_has_rested_is_asked(make_engine, pg_url, driver, statements):
    engine = make_engine(pg_url(driver), ping_idle_after=0)
    backend(engine)
    asked = statements(engine)
    backend(engine)
    assert asked() == 1


@pytest.mark.parametrize("driver", ["pg8000"], indirect=True)
def test_driver_that_reads_ahead_is_asked_each_time(
    make_engine, pg_url, driver, statements
):
    engine = make_engine(pg_url(driver), ping_idle_after=60)
    backend(engine)
    asked = statements(engine)
    for _ in range(3):
        backend(engine)
    assert asked() == 3


def test_question_leaves_no_transaction_and_the_autocommit_as_it_was(
    make_engine, pg_url, driver, observer
):
    engine = make_engine(pg_url(driver), pool_pre_ping="always")
    backend(engine)
    raw = engine.raw_connection()
    assert raw.dbapi_connection.autocommit is False
    (state,) = observer.rows(
        "select state, query from pg_stat_activity where pid = any(%s)",
        observer.backends(),
    )
    assert state[0] == "idle"
    assert "poolproof_" in state[1]
    raw.close()


def test_unknown_driver_is_asked_without_autocommit(pg_url, driver, make_engine):
    """A driver of which nothing is known but PEP 249."""
    engine = make_engine(pg_url(driver))
    raw = engine.raw_connection()

    class Bare:
        def cursor(self):
            return raw.dbapi_connection.cursor()

        def rollback(self):
            raw.dbapi_connection.rollback()

    found = known.of(Bare(), engine.dialect)
    assert found.must_ask
    assert found.ask(Bare())
    assert found.ask(Bare())
    raw.close()
    assert engine.pool.stats().discarded == {}


@LIBPQ
@pytest.mark.parametrize("rows", ["dict", "object"])
def test_rows_of_another_kind_do_not_matter(make_engine, pg_url, driver, rows):
    if driver == "psycopg2":
        from psycopg2.extras import NamedTupleCursor, RealDictCursor

        factory = RealDictCursor if rows == "dict" else NamedTupleCursor
        options = {"cursor_factory": factory}
    else:
        from psycopg.rows import dict_row, namedtuple_row

        options = {"row_factory": dict_row if rows == "dict" else namedtuple_row}
    engine = make_engine(
        pg_url(driver), connect_args=options, pool_pre_ping="always", _initialize=False
    )
    held = engine.raw_connection()
    first = held.dbapi_connection
    held.close()
    again = engine.raw_connection()
    assert again.dbapi_connection is first
    again.close()


def test_wrong_answer_costs_the_connection(proxied, link, faults_seen):
    engine = proxied(pool_pre_ping="always")
    first = backend(engine)
    # In one segment with the answer to the ping: no peek can see it before.
    link().precede(answer("stray"))
    assert backend(engine) != first
    assert backend(engine)
    discarded = engine.pool.stats().discarded
    assert sum(discarded.values()) == 1
    assert set(discarded) <= {"wrong_answer", "no_answer"}


def test_silent_server_is_replaced_within_the_ping_timeout(proxied, proxy, link):
    engine = proxied(pool_pre_ping="always", ping_timeout=0.3)
    first = backend(engine)
    link().stall()
    with Stopwatch() as watch:
        assert backend(engine) != first
    assert 0.3 <= watch.seconds < SOON
    assert engine.pool.stats().discarded == {"ping_timeout": 1}


def test_notification_is_not_lost(make_engine, pg_url, driver, observer):
    engine = make_engine(pg_url(driver), ping_idle_after=0)
    raw = engine.raw_connection()
    first = raw.dbapi_connection
    if driver == "psycopg":
        heard = []
        first.add_notify_handler(lambda one: heard.append(one.payload))
    cursor = raw.cursor()
    cursor.execute("listen poolproof_test")
    raw.commit()
    raw.close()
    observer.rows("notify poolproof_test, 'hello'")
    await_message(first)
    raw = engine.raw_connection()
    assert raw.dbapi_connection is first
    raw.cursor().execute("select 1")
    if driver == "psycopg2":
        heard = [one.payload for one in first.notifies]
    elif driver == "pg8000":
        heard = [one[2] for one in first.notifications]
    assert heard == ["hello"]
    raw.close()
    assert engine.pool.stats().discarded == {}


@LIBPQ
def test_message_that_has_only_begun_is_asked_about(proxied, link, statements):
    engine = proxied(ping_idle_after=60)
    first = backend(engine)
    notice = message(b"N", b"SNOTICE\0C00000\0Mhello\0\0")
    link().inject(notice[:7])
    asked = statements(engine)
    link().precede(notice[7:])
    assert backend(engine) == first
    assert asked() == 1


def test_sqlalchemys_own_ping_is_kept_for_other_databases(make_engine, tmp_path):
    engine = make_engine(f"sqlite:///{tmp_path}/a.db", pool_pre_ping=True)
    pings = []
    really = engine.dialect.do_ping
    engine.dialect.do_ping = lambda connection: pings.append(1) or really(connection)
    for _ in range(3):
        engine.connect().close()
    assert len(pings) == 2


def test_error_of_a_ping_does_not_reach_the_guard(proxied, link, faults_seen):
    engine = proxied(pool_pre_ping="always")
    backend(engine)
    link().cut()
    assert backend(engine)
    assert faults_seen == []


def test_interruption_in_a_ping_loses_no_slot(make_engine, pg_url, driver, monkeypatch):
    engine = make_engine(pg_url(driver), pool_pre_ping="always")
    backend(engine)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Driver, "ask", interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.connect()
    assert engine.pool.checkedout() == 0
    assert backend(engine)


def test_listener_of_invalidate_that_fails_in_a_discard_loses_no_slot(
    make_engine, pg_url, driver, observer
):
    engine = make_engine(pg_url(driver))
    pid = backend(engine)
    observer.terminate(pid)

    def fail(*_):
        raise ZeroDivisionError

    event.listen(engine, "invalidate", fail)
    with pytest.raises(ZeroDivisionError):
        engine.connect()
    event.remove(engine, "invalidate", fail)
    assert engine.pool.checkedout() == 0
    assert backend(engine) != pid


def test_server_that_is_gone_is_an_ordinary_error(proxied, proxy, driver):
    engine = proxied(pool_pre_ping="always", pool_timeout=5)
    backend(engine)
    proxy.stop()
    for _ in range(3):
        with pytest.raises((exc.DBAPIError, OSError)):
            engine.connect()
        assert engine.pool.checkedout() == 0


def test_answer_that_comes_as_the_bound_passes_is_none(
    make_engine, pg_url, driver, monkeypatch
):
    engine = make_engine(pg_url(driver), pool_pre_ping="always", ping_timeout=0.2)
    first = backend(engine)
    really = Driver.ask

    def ask_and_dawdle(driver, connection):
        answered = really(driver, connection)
        time.sleep(0.4)
        return answered

    monkeypatch.setattr(Driver, "ask", ask_and_dawdle)
    assert backend(engine) != first
    assert engine.pool.stats().discarded == {"ping_timeout": 1}


class SoftTimeLimit(Exception):  # noqa: N818 - as task queues call it
    """Raised by a signal's handler, as task queues do it."""


@pytest.mark.parametrize("limit", [SoftTimeLimit, TimeoutError, KeyboardInterrupt])
def test_limit_of_the_caller_that_passes_in_a_ping_reaches_the_caller(
    proxied, link, limit
):
    engine = proxied(pool_pre_ping="always", ping_timeout=5)
    backend(engine)
    link().stall()

    def end(*_):
        raise limit

    before = signal.signal(signal.SIGALRM, end)
    try:
        with pytest.raises(limit):  # noqa: PT012 - not before it is expected
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            engine.connect()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert engine.pool.checkedout() == 0
    assert engine.pool.checkedin() == 0


@pytest.mark.parametrize("level", [None, "REPEATABLE READ", "AUTOCOMMIT"])
def test_ping_leaves_no_transaction_open(make_engine, pg_url, driver, level):
    """Also psycopg2's that may not be switched to autocommit for it."""
    options = {} if level is None else {"isolation_level": level}
    engine = make_engine(pg_url(driver), pool_pre_ping="always", **options)
    engine.raw_connection().close()
    raw = engine.raw_connection()
    found = known.of(raw.dbapi_connection, engine.dialect)
    assert found.status(raw.dbapi_connection) == found.idle
    raw.close()
