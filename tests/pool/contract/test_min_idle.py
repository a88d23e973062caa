"""Connections are kept ready ahead of need, once the pool is in use."""

from __future__ import annotations

import itertools
import logging
import threading
import time

import pytest
from sqlalchemy import event

import poolproof
from plugins.pools import rest
from plugins.threads import Task, assert_whole, eventually, wait_for_waiters
from poolproof.pool import maintenance_thread

pytestmark = pytest.mark.difference


@pytest.fixture
def pool_class():
    return poolproof.Pool


def test_difference_nothing_is_opened_before_the_first_use(make_pool, dbapi):
    pool = make_pool(min_idle=3)
    time.sleep(0.1)
    assert dbapi.connects == 0
    assert pool.checkedin() == 0


def test_difference_first_use_opens_what_is_to_be_ready(make_pool, dbapi):
    pool = make_pool(min_idle=3)
    with pool.connect():
        eventually(lambda: pool.checkedin() == 3)
    assert len(dbapi.open) == 4
    assert pool.checkedin() == 4
    assert pool.stats().checkouts_total == 1


def test_difference_what_is_taken_is_made_up_for_within_the_size(make_pool, dbapi):
    pool = make_pool(pool_size=4, max_overflow=3, min_idle=2)
    taken = [pool.connect()]
    eventually(lambda: pool.checkedin() == 2)
    taken.append(pool.connect())
    eventually(lambda: pool.checkedin() == 2)
    # Four are open, which is all that the pool would keep.
    taken.append(pool.connect())
    time.sleep(0.1)
    assert len(dbapi.open) == 4
    for fairy in taken:
        fairy.close()
    assert len(dbapi.open) == 4
    assert_whole(pool, dbapi, 7)


def test_difference_what_grew_too_old_is_replaced_ahead_of_need(
    make_pool, dbapi, short_lives
):
    short_lives(0.15)
    pool = make_pool(min_idle=2)
    rest(pool, 1)
    eventually(lambda: dbapi.connects >= 6)
    eventually(lambda: pool.checkedin() == 2)
    assert dbapi.peak <= 3


def test_difference_what_was_discarded_is_replaced_ahead_of_need(make_pool, dbapi):
    pool = make_pool(min_idle=2)
    rest(pool, 1)
    eventually(lambda: pool.checkedin() >= 2)
    pool.connect().invalidate()
    eventually(lambda: len(dbapi.open) == pool.checkedin() >= 2)
    assert_whole(pool, dbapi, 15)


def test_difference_disposed_pool_opens_again_at_its_next_use(make_pool, dbapi):
    pool = make_pool(min_idle=2)
    with pool.connect():
        eventually(lambda: pool.checkedin() == 2)
        pool.dispose()
        time.sleep(0.1)
        assert len(dbapi.open) == 1
    assert not dbapi.open
    time.sleep(0.1)
    assert not dbapi.open
    with pool.connect():
        eventually(lambda: pool.checkedin() == 2)


def test_difference_pool_that_is_disposed_while_the_keeper_connects_stays_empty(
    make_pool, dbapi
):
    pool = make_pool(min_idle=1)
    connecting, go = threading.Event(), threading.Event()

    def slow(connection):
        if connection.number == 2:
            connecting.set()
            go.wait(10)

    dbapi.script["connect"] = slow
    with pool.connect():
        assert connecting.wait(10)
        pool.dispose()
        go.set()
    eventually(lambda: not dbapi.open)
    time.sleep(0.05)
    assert dbapi.connects == 2


@pytest.mark.quick("socket")
def test_difference_failures_to_connect_are_logged_once_and_tried_again(
    make_pool, dbapi, caplog
):
    caplog.set_level("INFO", logger="sqlalchemy.pool")
    pool = make_pool(min_idle=2)
    refused = []

    def refuse_the_keeper(connection):
        if threading.current_thread().name == maintenance_thread.NAME:
            refused.append(time.monotonic())
            raise dbapi.OperationalError("password=secret")

    dbapi.script["connect"] = refuse_the_keeper
    with pool.connect():
        eventually(lambda: len(refused) > 4)
        dbapi.script.clear()
        eventually(lambda: pool.checkedin() == 2)
    eventually(lambda: len(caplog.messages) > 1)
    (warning,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert warning.getMessage() == (
        f"poolproof: Keeping 2 connections ready in pool {pool.name()} fails "
        "(OperationalError); trying on"
    )
    assert "poolproof: Connecting ahead of need works again" in caplog.messages
    assert "secret" not in caplog.text
    pauses = [b - a for a, b in itertools.pairwise(refused)]
    assert pauses[0] > 0.02
    # Of all that the first four are at the least: 0.025 + 0.05 + 0.1 + 0.2.
    assert sum(pauses[:4]) > 0.3


def test_difference_transaction_of_a_connect_listener_is_ended(make_pool, dbapi):
    """As the reset of a check-in ends it: else it would be discarded, for ever."""
    pool = make_pool(min_idle=2)

    def begin(connection, _entry):
        connection.transaction_status = 2

    def end(connection):
        connection.transaction_status = 0

    event.listen(pool, "connect", begin)
    dbapi.script["rollback"] = end
    rest(pool, 1)
    eventually(lambda: pool.checkedin() >= 2)
    assert dbapi.connects <= 3
    assert pool.stats().discarded == {}


def test_difference_connection_that_never_comes_to_rest_is_not_opened_in_a_circle(
    make_pool, dbapi
):
    pool = make_pool(min_idle=2)

    def begin(connection, _entry):
        connection.transaction_status = 2

    event.listen(pool, "connect", begin)
    with pool.connect():
        time.sleep(0.4)
    assert dbapi.connects < 8


def test_difference_caller_who_waits_is_served_before_the_keeper(make_pool, dbapi):
    pool = make_pool(pool_size=2, max_overflow=0, min_idle=2)
    first, second = pool.connect(), pool.connect()
    waiter = Task(pool.connect)
    wait_for_waiters(pool, 1)
    first.invalidate()
    first.close()
    waiter.result().close()
    second.close()
    assert dbapi.peak <= 2
    assert_whole(pool, dbapi, 2)


@pytest.mark.quick("socket")
def test_difference_keeper_takes_no_slot_while_callers_try_to_connect(make_pool, dbapi):
    pool = make_pool(pool_size=2, max_overflow=0, min_idle=2, timeout=20)
    held = pool.connect()
    eventually(lambda: pool.checkedin() == 1)

    def refuse(_connection):
        raise dbapi.OperationalError("refused")

    dbapi.script["connect"] = refuse
    pool.connect().invalidate()  # the keeper begins to fail
    eventually(lambda: pool._connecting.failures > 2)
    refused = Task(pool.connect)
    with pytest.raises(dbapi.OperationalError):
        refused.result()
    waited = 0
    for _ in range(100):
        waited += pool.stats().waiting
        time.sleep(0.005)
    caller = Task(pool.connect)
    for _ in range(100):
        waited += pool.stats().waiting
        time.sleep(0.002)
    assert waited < 80  # of 200 looks
    with pytest.raises(dbapi.OperationalError):
        caller.result()
    dbapi.script.clear()
    held.close()
    eventually(lambda: pool.checkedin() == 2)
    assert_whole(pool, dbapi, 2)
