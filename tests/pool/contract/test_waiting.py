"""Waiting for a connection: how long, and what ends it."""

from __future__ import annotations

import threading
import time

import pytest
from sqlalchemy import event, exc

from plugins.threads import Task, assert_whole, wait_for_waiters


def test_timeout_zero_does_not_wait(make_pool, dbapi):
    pool = make_pool(pool_size=1, max_overflow=0, timeout=0)
    with pool.connect():
        began = time.monotonic()
        with pytest.raises(exc.TimeoutError):
            pool.connect()
        assert time.monotonic() - began < 10
    assert_whole(pool, dbapi, 1)


def test_timeout_is_a_length_in_seconds(make_pool, dbapi):
    pool = make_pool(pool_size=1, max_overflow=0, timeout=0.15)
    with pool.connect():
        began = time.monotonic()
        with pytest.raises(exc.TimeoutError):
            pool.connect()
        assert 0.14 <= time.monotonic() - began < 10
    assert_whole(pool, dbapi, 1)


def test_timeout_none_waits_until_a_connection_is_there(make_pool):
    pool = make_pool(pool_size=1, max_overflow=0, timeout=None)
    held = pool.connect()
    waiter = Task(pool.connect)
    wait_for_waiters(pool, 1)
    held.close()
    waiter.result().close()


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_timeout_does_not_bound_connecting(make_pool, dbapi, timeout):
    dbapi.script["connect"] = lambda _: time.sleep(0.1)
    pool = make_pool(pool_size=1, max_overflow=0, timeout=timeout)
    pool.connect().close()


def test_timeout_tells_what_it_was_set_to(make_pool):
    assert make_pool(timeout=7).timeout() == 7
    assert make_pool(timeout=0.5).timeout() == 0.5
    assert make_pool(timeout=0).timeout() == 0


def test_waiter_gets_the_connection_that_comes_back(make_pool, dbapi):
    pool = make_pool(pool_size=1, max_overflow=0)
    held = pool.connect()
    waiter = Task(pool.connect)
    wait_for_waiters(pool, 1)
    held.close()
    got = waiter.result()
    assert got.dbapi_connection.number == 1
    assert dbapi.connects == 1
    got.close()


def test_every_waiter_is_served(make_pool, dbapi):
    pool = make_pool(pool_size=2, max_overflow=1)
    held = [pool.connect() for _ in range(3)]
    waiters = [Task(lambda: pool.connect().close()) for _ in range(12)]
    wait_for_waiters(pool, 12)
    for one in held:
        one.close()
    for waiter in waiters:
        waiter.result()
    assert dbapi.connects == 3
    assert_whole(pool, dbapi, 3)


def test_waiter_for_an_overflow_slot_gets_the_connection_that_comes_back(
    make_pool, dbapi
):
    pool = make_pool(pool_size=1, max_overflow=1)
    first, second = pool.connect(), pool.connect()
    waiter = Task(pool.connect)
    wait_for_waiters(pool, 1)
    second.close()
    got = waiter.result()
    assert got.dbapi_connection.number == 2
    got.close()
    first.close()
    assert_whole(pool, dbapi, 2)


def test_waiter_is_served_when_a_connection_is_invalidated(make_pool, dbapi):
    pool = make_pool(pool_size=1, max_overflow=0)
    held = pool.connect()
    waiter = Task(pool.connect)
    wait_for_waiters(pool, 1)
    held.invalidate()
    got = waiter.result()
    assert got.dbapi_connection.number == 2
    got.close()
    assert_whole(pool, dbapi, 1)


def test_waiter_is_served_when_a_connection_is_detached(make_pool, dbapi):
    pool = make_pool(pool_size=1, max_overflow=0)
    held = pool.connect()
    waiter = Task(pool.connect)
    wait_for_waiters(pool, 1)
    held.detach()
    got = waiter.result()
    assert got.dbapi_connection.number == 2
    got.close()
    held.close()
    assert_whole(pool, dbapi, 1)


def test_waiter_is_served_when_a_checkout_listener_fails(make_pool, dbapi):
    pool = make_pool(pool_size=1, max_overflow=0)
    inside, go_on = threading.Event(), threading.Event()

    def fail_once(_connection, _record, _fairy):
        if not inside.is_set():
            inside.set()
            assert go_on.wait(10)
            message = "the listener failed"
            raise ValueError(message)

    event.listen(pool, "checkout", fail_once)
    failing = Task(pool.connect)
    assert inside.wait(10)
    waiter = Task(pool.connect)
    wait_for_waiters(pool, 1)
    go_on.set()
    waiter.result().close()
    with pytest.raises(ValueError, match="the listener failed"):
        failing.result()
    assert_whole(pool, dbapi, 1)


@pytest.mark.quick("socket")
def test_waiter_is_served_at_the_latest_at_its_deadline_when_a_connect_fails(
    make_pool, dbapi
):
    waiter, failing, go_on = connect_that_fails_before_a_waiter(
        make_pool(pool_size=1, max_overflow=0, timeout=2.0), dbapi
    )
    go_on.set()
    waiter.result().close()
    with pytest.raises(dbapi.OperationalError):
        failing.result()


@pytest.mark.difference
@pytest.mark.parametrize("pool_class", ["poolproof"], indirect=True)
def test_difference_waiter_is_served_at_once_when_a_connect_fails(make_pool, dbapi):
    """QueuePool frees the slot too, but lets its waiters sleep to their deadline."""
    pool = make_pool(pool_size=1, max_overflow=0, timeout=None)
    waiter, failing, go_on = connect_that_fails_before_a_waiter(pool, dbapi)
    go_on.set()
    waiter.result().close()
    with pytest.raises(dbapi.OperationalError):
        failing.result()
    assert_whole(pool, dbapi, 1)


def connect_that_fails_before_a_waiter(pool, dbapi):
    inside, go_on = threading.Event(), threading.Event()

    def refuse_the_first(connection):
        if connection.number == 1:
            inside.set()
            assert go_on.wait(10)
            message = "refused"
            raise dbapi.OperationalError(message)

    dbapi.script["connect"] = refuse_the_first
    failing = Task(pool.connect)
    assert inside.wait(10)
    waiter = Task(pool.connect)
    wait_for_waiters(pool, 1)
    return waiter, failing, go_on


def test_waiters_that_time_out_leave_the_pool_whole(make_pool, dbapi):
    pool = make_pool(pool_size=2, max_overflow=1, timeout=0.05)
    held = [pool.connect() for _ in range(3)]
    waiters = [Task(pool.connect) for _ in range(10)]
    for waiter in waiters:
        with pytest.raises(exc.TimeoutError):
            waiter.result()
    for one in held:
        one.close()
    assert_whole(pool, dbapi, 3)


def test_slow_connect_does_not_hold_up_the_others(make_pool, dbapi):
    pool = make_pool(pool_size=2, max_overflow=0)
    inside, go_on = threading.Event(), threading.Event()

    def hold_the_second(connection):
        if connection.number == 2:
            inside.set()
            assert go_on.wait(10)

    dbapi.script["connect"] = hold_the_second
    held = pool.connect()
    slow = Task(pool.connect)
    assert inside.wait(10)
    for _ in range(5):
        held.close()
        held = pool.connect()
    assert pool.checkedout() == 2
    go_on.set()
    slow.result().close()
    held.close()
    assert_whole(pool, dbapi, 2)
