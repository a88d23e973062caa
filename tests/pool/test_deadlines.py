"""Every call of the pool's own ends in time, and says why."""

from __future__ import annotations

import pickle
import threading

import pytest
from sqlalchemy import event, exc, text

import poolproof
from plugins.threads import Task, eventually
from plugins.wire import SOON, Stopwatch, backend, deadline_in

BACKEND = text("select pg_backend_pid()")


def test_rollback_of_a_silent_server_ends_in_time(proxied, link):
    engine = proxied(reset_timeout=0.3)
    connection = engine.connect()
    pid = connection.scalar(BACKEND)
    link().stall()
    with Stopwatch() as watch, pytest.raises(exc.DBAPIError) as caught:
        connection.rollback()
    assert 0.3 <= watch.seconds < SOON
    assert caught.value.connection_invalidated
    passed = deadline_in(caught.value)
    assert (passed.step, passed.limit, passed.backend_pid) == ("rollback", 0.3, pid)
    connection.close()
    assert engine.pool.stats().discarded == {"rollback_timeout": 1}


def test_check_in_of_a_silent_session_ends_in_time(proxied, link, caplog):
    engine = proxied(reset_timeout=0.3)
    raw = engine.raw_connection()
    raw.cursor().execute("select 1")
    link().stall()
    with Stopwatch() as watch:
        raw.close()
    assert 0.3 <= watch.seconds < SOON
    assert engine.pool.stats().discarded == {"rollback_timeout": 1}
    assert "Exception during reset" in caplog.text  # SQLAlchemy's own word for it
    assert engine.pool.checkedout() == 0


def test_commit_at_the_return_is_bounded(proxied, link):
    engine = proxied(reset_timeout=0.3, pool_reset_on_return="commit")
    raw = engine.raw_connection()
    raw.cursor().execute("select 1")
    link().stall()
    with Stopwatch() as watch:
        raw.close()
    assert 0.3 <= watch.seconds < SOON
    assert engine.pool.stats().discarded == {"reset_timeout": 1}
    assert engine.pool.checkedout() == 0


def test_listener_of_reset_is_bounded(proxied, link):
    engine = proxied(reset_timeout=1)

    @event.listens_for(engine, "reset")
    def discard_all(connection, *_):
        connection.cursor().execute("select 1")

    for _ in range(3):
        engine.raw_connection().close()  # within the bound, and it is taken back
    raw = engine.raw_connection()
    link().stall()
    with Stopwatch() as watch:
        raw.close()
    assert 1 <= watch.seconds < SOON
    assert engine.pool.stats().discarded == {"reset_timeout": 1}


def test_pool_with_listeners_of_reset_is_recreated_with_one_bound(proxied):
    engine = proxied(pool_reset_on_return="commit")
    for _ in range(3):
        engine.connect().close()
        engine.dispose()
    engine.connect().close()
    assert len(list(engine.pool.dispatch.reset)) == 1


@pytest.mark.quick("psycopg2")
def test_listener_of_connect_is_bounded_by_the_checkout(proxied, proxy, link, driver):
    engine = proxied(pool_timeout=0.2, checkout_timeout=2)
    backend(engine)
    engine.dispose()

    @event.listens_for(engine, "connect")
    def ask(connection, _):
        proxy.stall()
        connection.cursor().execute("select 1")

    with Stopwatch() as watch, pytest.raises((exc.DBAPIError, OSError)) as caught:
        engine.connect()
    assert 2 <= watch.seconds < SOON
    passed = deadline_in(getattr(caught.value, "orig", None) or caught.value)
    assert (passed.step, passed.limit) == ("checkout", 2)
    event.remove(engine, "connect", ask)
    proxy.resume()
    assert engine.pool.checkedout() == 0
    assert backend(engine)


def test_waiting_ends_with_the_checkout_when_that_is_earlier(make_engine, pg_url):
    engine = make_engine(pg_url("psycopg2"), pool_timeout=20, checkout_timeout=3)
    held = engine.connect()
    with Stopwatch() as watch, pytest.raises(poolproof.PoolTimeout):
        engine.connect()
    assert 3 <= watch.seconds < SOON
    held.close()


def test_connection_held_too_long_is_shut(make_engine, pg_url, driver, observer):
    engine = make_engine(pg_url(driver), hold_timeout=1)
    connection = engine.connect()
    pid = connection.scalar(BACKEND)
    with Stopwatch() as watch, pytest.raises(exc.DBAPIError) as caught:
        connection.execute(text("select pg_sleep(20)"))
    assert watch.seconds < SOON
    passed = deadline_in(caught.value)
    assert (passed.step, passed.limit, passed.backend_pid) == ("hold", 1, pid)
    connection.close()
    assert engine.pool.stats().discarded == {"hold_timeout": 1}
    assert backend(engine) != pid


@pytest.mark.quick("psycopg2")
def test_holding_is_counted_anew_for_each_holder(make_engine, pg_url, driver):
    engine = make_engine(pg_url(driver), hold_timeout=1.5)
    first = backend(engine)
    for _ in range(4):
        with engine.connect() as connection:
            connection.execute(text("select pg_sleep(0.5)"))
    assert backend(engine) == first


@pytest.mark.quick("psycopg2")
def test_rest_is_not_counted_as_holding(make_engine, pg_url, driver):
    engine = make_engine(pg_url(driver), hold_timeout=1)
    first = backend(engine)
    threading.Event().wait(1.2)
    assert backend(engine) == first
    assert engine.pool.stats().discarded == {}


def test_shut_socket_that_nobody_used_is_found_at_the_return(make_engine, pg_url):
    engine = make_engine(pg_url("psycopg2"), hold_timeout=0.1)
    connection = engine.connect()
    threading.Event().wait(0.3)
    connection.close()
    assert engine.pool.stats().discarded == {"hold_timeout": 1}


@pytest.mark.quick("psycopg2")
def test_slow_but_healthy_work_is_left_alone(make_engine, pg_url, driver):
    """The bound of a checkout ends with it, also where it has connected."""
    engine = make_engine(
        pg_url(driver), ping_timeout=1, reset_timeout=1, checkout_timeout=2
    )
    with engine.connect() as connection:
        connection.execute(text("select pg_sleep(2.1)"))
        connection.commit()
    assert engine.pool.stats().discarded == {}


def test_many_stalled_sessions_end_together(proxied, proxy):
    engine = proxied(pool_size=8, reset_timeout=1)
    connections = [engine.connect() for _ in range(8)]
    for one in connections:
        one.scalar(BACKEND)
    proxy.stall()

    def end(connection):
        with pytest.raises(exc.DBAPIError):
            connection.rollback()
        connection.close()

    with Stopwatch() as watch:
        for task in [Task(end, one) for one in connections]:
            task.result()
    assert watch.seconds < SOON
    proxy.resume()
    for _ in range(8):
        assert backend(engine)
    assert engine.pool.stats().discarded == {"rollback_timeout": 8}


def test_commit_of_a_silent_server_is_bounded_by_a_block(proxied, link):
    engine = proxied()
    connection = engine.connect()
    connection.scalar(BACKEND)
    link().stall()
    with (
        Stopwatch() as watch,
        pytest.raises(exc.DBAPIError) as caught,
        poolproof.deadline(0.3),
    ):
        connection.commit()
    assert watch.seconds < SOON
    assert deadline_in(caught.value).step == "deadline"
    assert poolproof.classify(caught.value).outcome == "unknown"
    connection.close()


@pytest.mark.parametrize(
    ("left", "shown"), [(0.999968, 1.0), (2.99955, 3.0), (0.3, 0.3), (1e-6, 1e-6)]
)
def test_limit_that_was_left_of_another_is_rounded(left, shown):
    error = poolproof.DeadlineExceeded("deadline", left)
    assert error.limit == shown
    assert f"the limit of {shown:g} s" in str(error)


def test_reason_survives_pickling():
    error = pickle.loads(pickle.dumps(poolproof.DeadlineExceeded("ping", 2.0, 123)))
    assert (error.step, error.limit, error.backend_pid) == ("ping", 2.0, 123)
    assert "2 s for a ping" in str(error)
    assert "raise ping_timeout" in str(error)
    assert "backend pid 123" in str(error)
    assert isinstance(error, TimeoutError)


@pytest.mark.alone
@pytest.mark.quick("psycopg2")
def test_calls_that_hang_return_within_a_twentieth_of_a_second(proxied, link):
    """Half of them: now and then the machine has something else to do."""
    engine = proxied(reset_timeout=0.2)
    late = []
    for _ in range(7):
        raw = engine.raw_connection()
        raw.cursor().execute("select 1")
        one = link()
        one.stall()
        with Stopwatch() as watch:
            raw.close()
        late.append(watch.seconds - 0.2)
        one.cut()
        eventually(lambda one=one: not one.alive, what="the end of the old link")
    assert sorted(late)[3] < 0.05, late


@pytest.mark.parametrize("driver", ["pg8000"], indirect=True)
@pytest.mark.parametrize("options", [{}, {"stream_results": True}])
def test_time_out_of_the_drivers_own_is_an_error_of_the_driver(
    make_engine, pg_url, driver, options
):
    """Also while rows are fetched, where SQLAlchemy calls no verb of the dialect."""
    engine = make_engine(pg_url(driver), connect_args={"timeout": 0.3})
    with engine.connect().execution_options(**options) as connection:
        with pytest.raises(exc.InterfaceError) as caught:
            connection.execute(text("select pg_sleep(60)")).all()
        assert caught.value.connection_invalidated
    assert isinstance(caught.value.orig, engine.dialect.dbapi.InterfaceError)
    assert isinstance(caught.value.orig.__cause__, TimeoutError)
    assert engine.pool.stats().discarded == {"connection_lost": 1}


@pytest.mark.parametrize("driver", ["pg8000"], indirect=True)
def test_deadline_while_rows_are_fetched_is_an_error_of_the_driver(
    make_engine, pg_url, driver
):
    engine = make_engine(pg_url(driver))
    slow = text(
        "select pg_sleep(case n when 3 then 60 else 0 end) from "
        "generate_series(1, 3) as n"
    )
    with engine.connect() as connection, poolproof.deadline(1):
        found = connection.execution_options(
            stream_results=True, max_row_buffer=1
        ).execute(slow)
        with pytest.raises(exc.DBAPIError) as caught:
            found.all()
    assert deadline_in(caught.value.orig).step == "deadline"
