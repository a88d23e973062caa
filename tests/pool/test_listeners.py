"""What listeners and others ask of a connection on its way out and back is bounded."""

from __future__ import annotations

import contextlib
import threading

import pytest
from sqlalchemy import event, exc, text

import poolproof
from plugins.wire import SOON, Stopwatch, backend, deadline_in

BACKEND = text("select pg_backend_pid()")
ONE = "select 1"


def resume_in(seconds: float, proxy) -> threading.Timer:
    timer = threading.Timer(seconds, proxy.resume)
    timer.daemon = True
    timer.start()
    return timer


@pytest.fixture(autouse=True)
def _waits_end(proxy):
    """Let a call that nothing bounds fail its test, and not wait for ever."""
    rescue = resume_in(SOON + 5, proxy)
    yield
    rescue.cancel()


@pytest.mark.quick("psycopg2")
def test_commit_of_the_caller_is_not_bounded_by_the_reset(proxied, link, proxy):
    engine = proxied(reset_timeout=1, pool_reset_on_return="commit")
    with engine.connect() as connection:
        connection.scalar(BACKEND)
        link().stall()
        resume_in(1.3, proxy)
        connection.commit()
    assert engine.pool.stats().discarded == {}


def test_listener_of_reset_ends_in_time(proxied, link):
    engine = proxied(reset_timeout=0.3, pool_reset_on_return=None)
    backend(engine)

    @event.listens_for(engine, "reset")
    def reset(connection, _record, state):
        if not state.terminate_only:
            connection.cursor().execute(ONE)
            connection.rollback()

    raw = engine.raw_connection()
    link().stall()
    with Stopwatch() as watch:
        raw.close()
    assert 0.3 <= watch.seconds < SOON
    assert engine.pool.stats().discarded == {"reset_timeout": 1}
    assert engine.pool.checkedout() == 0


@pytest.mark.quick("psycopg2")
def test_listener_of_reset_leaves_a_healthy_connection_in_the_pool(
    make_engine, pg_url, driver
):
    engine = make_engine(pg_url(driver), reset_timeout=1, hold_timeout=20)

    @event.listens_for(engine, "reset")
    def reset(connection, _record, _state):
        connection.cursor().execute(ONE)
        connection.rollback()

    first = backend(engine)
    for _ in range(2):
        with engine.connect() as connection:
            assert connection.scalar(BACKEND) == first
            connection.execute(text("select pg_sleep(1.2)"))
    assert engine.pool.stats().discarded == {}


def test_listener_of_checkin_ends_in_time(proxied, link):
    engine = proxied(reset_timeout=0.3)

    @event.listens_for(engine, "checkin")
    def ask(connection, _record):
        if connection is not None:
            connection.cursor().execute(ONE)

    raw = engine.raw_connection()
    link().stall()
    with Stopwatch() as watch, pytest.raises(Exception) as caught:  # noqa: PT011 - the driver's own
        raw.close()
    assert 0.3 <= watch.seconds < SOON
    assert deadline_in(caught.value).step == "reset"
    assert engine.pool.checkedout() == 0


def test_isolation_level_is_put_back_in_time(proxied, link):
    """With pg8000 that is a round trip at the check-in; with the others nothing."""
    engine = proxied(reset_timeout=0.3)
    connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    connection.scalar(BACKEND)
    link().stall()
    with Stopwatch() as watch, contextlib.suppress(Exception):
        connection.close()
    assert watch.seconds < SOON
    assert engine.pool.checkedout() == 0


def test_two_phase_transaction_ends_in_time_at_check_in(proxied, link):
    engine = proxied(reset_timeout=0.3)
    connection = engine.connect()
    connection.begin_twophase()
    connection.scalar(BACKEND)
    link().stall()
    with Stopwatch() as watch, contextlib.suppress(exc.DBAPIError):
        connection.close()
    assert 0.3 <= watch.seconds < SOON
    assert engine.pool.checkedout() == 0


def test_rollback_to_a_savepoint_ends_in_time(proxied, link):
    engine = proxied(reset_timeout=0.3)
    connection = engine.connect()
    connection.begin()
    nested = connection.begin_nested()
    connection.scalar(BACKEND)
    link().stall()
    with Stopwatch() as watch, pytest.raises(exc.DBAPIError) as caught:
        nested.rollback()
    assert 0.3 <= watch.seconds < SOON
    assert deadline_in(caught.value).step == "rollback"
    connection.close()


def test_check_in_of_a_detached_connection_ends_in_time(proxied, link):
    engine = proxied(reset_timeout=0.3)
    raw = engine.raw_connection()
    raw.cursor().execute(ONE)
    raw.detach()
    link().stall()
    with Stopwatch() as watch:
        raw.close()
    assert 0.3 <= watch.seconds < SOON


@pytest.mark.quick("psycopg2")
def test_listener_of_checkout_is_bounded_by_the_checkout(proxied, link):
    engine = proxied(pool_timeout=0.2, checkout_timeout=2, ping_idle_after=60)
    backend(engine)

    @event.listens_for(engine, "checkout")
    def ask(connection, _record, _fairy):
        if stalled:
            connection.cursor().execute(ONE)

    stalled = [link().stall()]
    with Stopwatch() as watch, pytest.raises(Exception) as caught:  # noqa: PT011 - the driver's own
        engine.connect()
    assert 1.9 <= watch.seconds < SOON
    error = caught.value
    passed = deadline_in(getattr(error, "orig", None) or error)
    assert passed.step in {"checkout", "ping"}  # pg8000 is asked before
    assert passed.limit == pytest.approx(2, abs=0.1)
    assert engine.pool.checkedout() == 0
    stalled.clear()
    assert backend(engine)


def test_listener_of_checkout_is_bounded_by_a_block(proxied, link):
    engine = proxied(ping_idle_after=60)
    backend(engine)

    @event.listens_for(engine, "checkout")
    def ask(connection, _record, _fairy):
        connection.cursor().execute(ONE)

    link().stall()
    with Stopwatch() as watch, poolproof.deadline(0.4), contextlib.suppress(Exception):
        engine.connect()
    assert watch.seconds < SOON
    assert engine.pool.checkedout() == 0


@pytest.mark.quick("psycopg2")
def test_connection_that_a_listener_of_checkout_uses_is_free_for_its_caller(
    make_engine, pg_url, driver
):
    engine = make_engine(pg_url(driver), pool_timeout=0.2, checkout_timeout=2)
    event.listen(engine, "checkout", lambda one, *_: one.cursor().execute(ONE))
    for _ in range(2):
        with engine.connect() as connection:
            connection.execute(text("select pg_sleep(2.2)"))
    assert engine.pool.stats().discarded == {}


@pytest.mark.quick("psycopg2")
def test_connection_whose_bound_passed_unseen_is_not_lent(proxied, proxy):
    """A listener that swallows the error of its query hides that the socket is shut."""
    engine = proxied(pool_timeout=0.2, checkout_timeout=2)
    backend(engine)
    engine.dispose()

    @event.listens_for(engine, "connect")
    def ask(connection, _record):
        proxy.stall()
        with contextlib.suppress(Exception):
            connection.cursor().execute(ONE)

    with pytest.raises(poolproof.PoolTimeout) as caught:
        engine.connect()
    assert deadline_in(caught.value).step == "checkout"
    assert engine.pool.checkedout() == 0
    event.remove(engine, "connect", ask)
    proxy.resume()
    assert backend(engine)
