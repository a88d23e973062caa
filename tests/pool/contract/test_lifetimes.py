"""Connections that rest are kept young and few."""

from __future__ import annotations

import threading
import time

import pytest
from sqlalchemy import event

import poolproof
from plugins.pools import rest
from plugins.threads import assert_whole, eventually, wait_until_none_is_out
from poolproof.pool import maintenance, maintenance_thread

pytestmark = pytest.mark.difference


@pytest.fixture
def pool_class():
    return poolproof.Pool


def test_difference_connection_that_rests_too_long_is_closed(make_pool, dbapi):
    pool = make_pool(max_idle=0.1)
    began = time.monotonic()
    rest(pool, 3)
    eventually(lambda: not dbapi.open)
    assert time.monotonic() - began >= 0.1
    wait_until_none_is_out(pool)
    assert (pool.checkedin(), pool.checkedout()) == (0, 0)
    assert pool.stats().discarded == {"idle": 3}
    assert_whole(pool, dbapi, 15)


def test_difference_closing_for_age_is_the_drivers_own_and_no_severing(
    make_pool, socket_dbapi
):
    states = []

    def at_close(connection):
        states.append(socket.severed)

    socket_dbapi.script["close"] = at_close
    pool = make_pool(socket_dbapi.connect, max_idle=0.05)
    fairy = pool.connect()
    socket = fairy._connection_record.socket
    fairy.close()
    eventually(lambda: states)
    assert states == [False]


def test_difference_those_that_rest_longest_go_down_to_min_idle(make_pool, dbapi):
    pool = make_pool(pool_size=4, max_overflow=0, max_idle=0.2, min_idle=2)
    fairies = [pool.connect() for _ in range(4)]
    numbers = [fairy.dbapi_connection.number for fairy in fairies]
    for fairy in fairies:
        fairy.close()
        time.sleep(0.01)
    eventually(lambda: pool.checkedin() == 2)
    time.sleep(0.3)
    assert pool.stats().discarded == {"idle": 2}
    assert set(dbapi.open) == set(numbers[2:])


def test_difference_connection_in_use_is_not_idle(make_pool, dbapi):
    closed = []
    dbapi.script["close"] = lambda _: closed.append(time.monotonic())
    pool = make_pool(max_idle=0.2)
    with pool.connect():
        time.sleep(0.4)
        assert len(dbapi.open) == 1
        returned = time.monotonic()
    # Its rest begins with its return.
    eventually(lambda: closed)
    assert closed[0] - returned >= 0.2


@pytest.mark.quick("socket")
def test_difference_connection_in_steady_use_stays(make_pool, dbapi):
    pool = make_pool(max_idle=1.5)
    for _ in range(40):
        pool.connect().close()
        time.sleep(0.04)
    assert dbapi.connects == 1
    assert pool.stats().discarded == {}


def test_difference_connection_that_the_keeper_closes_is_nobodys(make_pool, dbapi):
    """An application that looks for leaks must not find the pool's own work."""
    pool = make_pool(max_idle=0.05)
    closing, closed = threading.Event(), threading.Event()

    @event.listens_for(pool, "close")
    def _(*_arguments):
        closing.set()
        closed.wait(10)

    rest(pool, 1)
    assert closing.wait(10)
    counted = pool.stats()
    status = pool.status()
    closed.set()
    assert (counted.in_use, counted.maintenance, counted.idle) == (0, 1, 0)
    assert "Current Checked out connections: 0" in status
    eventually(lambda: not pool.stats().maintenance)


def test_difference_pool_grows_again_after_it_was_pruned(make_pool, dbapi):
    pool = make_pool(max_idle=0.05)
    for _ in range(3):
        rest(pool, 2)
        eventually(lambda: not dbapi.open)
    assert dbapi.connects == 6


# --- age ------------------------------------------------------------------------------


def test_difference_connection_that_is_too_old_is_closed_while_it_rests(
    make_pool, dbapi, short_lives
):
    short_lives(0.1)
    pool = make_pool(max_idle=None)
    rest(pool, 2)
    eventually(lambda: not dbapi.open)
    assert pool.stats().discarded == {"lifetime": 2}


def test_difference_connection_that_grows_old_during_a_look_is_not_missed(
    make_pool, dbapi, monkeypatch
):
    lives = iter([0.15, 0.05])
    monkeypatch.setattr(maintenance, "expiry", lambda _: time.monotonic() + next(lives))
    pool = make_pool(max_idle=None)
    # The first is looked at, then the second closed; meanwhile the first grows old.
    dbapi.script["close"] = lambda connection: (
        time.sleep(0.3) if connection.number == 2 else None
    )
    rest(pool, 2)
    eventually(lambda: not dbapi.open)


def test_difference_lifetime_is_kept_to_within_a_tenth(make_pool, dbapi):
    pool = make_pool(max_lifetime=1.0, max_idle=None)
    began = time.monotonic()
    rest(pool, 4)
    eventually(lambda: not dbapi.open)
    assert 0.9 <= time.monotonic() - began < 8


def test_difference_lifetimes_are_spread_by_a_tenth():
    settings = poolproof.Pool(lambda: None, max_lifetime=1000.0).settings
    now = time.monotonic()
    ages = [maintenance.expiry(settings) - now for _ in range(1000)]
    assert 899 < min(ages) < 920
    assert 1080 < max(ages) < 1101


def test_difference_connection_that_is_too_old_is_replaced_at_its_checkout(
    make_pool, dbapi, short_lives, monkeypatch
):
    monkeypatch.setattr(
        maintenance_thread, "look_at", lambda *_: None
    )  # it would be first
    short_lives(0.05)
    pool = make_pool()
    rest(pool, 1)
    time.sleep(0.1)
    dbapi.take_calls()
    with pool.connect() as fairy:
        assert fairy.dbapi_connection.number == 2
    assert dbapi.take_calls()[:2] == ["close 1", "connect 2"]
    assert pool.stats().discarded == {"lifetime": 1}


def test_difference_connection_in_use_is_not_closed_for_its_age_until_it_rests(
    make_pool, dbapi, short_lives
):
    short_lives(0.05)
    pool = make_pool(max_idle=None)
    with pool.connect() as fairy:
        time.sleep(0.2)
        assert fairy.is_valid
        assert len(dbapi.open) == 1
    eventually(lambda: not dbapi.open)
    assert pool.stats().discarded == {"lifetime": 1}


def test_difference_close_at_checkout_for_age_is_bounded(
    make_pool, socket_dbapi, short_lives, monkeypatch
):
    monkeypatch.setattr(maintenance_thread, "look_at", lambda *_: None)
    short_lives(0.01)

    def hang(connection):
        started = time.monotonic()
        while socket.expired is None and time.monotonic() - started < 10:
            time.sleep(0.005)

    pool = make_pool(socket_dbapi.connect, reset_timeout=0.2)
    with pool.connect() as fairy:
        socket = fairy._connection_record.socket
    time.sleep(0.02)
    socket_dbapi.script["close"] = hang
    began = time.monotonic()
    fairy = pool.connect()
    assert time.monotonic() - began < 8
    socket_dbapi.script.clear()
    fairy.close()


def test_difference_failing_close_listener_at_checkout_loses_no_slot(
    make_pool, dbapi, short_lives, monkeypatch
):
    monkeypatch.setattr(maintenance_thread, "look_at", lambda *_: None)
    short_lives(0.01)
    pool = make_pool(pool_size=1, max_overflow=0, timeout=0)
    rest(pool, 1)
    time.sleep(0.02)

    def refuse(*_):
        raise ZeroDivisionError

    event.listen(pool, "close", refuse)
    with pytest.raises(ZeroDivisionError):
        pool.connect()
    event.remove(pool, "close", refuse)
    assert_whole(pool, dbapi, 1)
