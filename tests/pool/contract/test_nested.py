"""Callers that wait for what they hold themselves.

Each holds a connection and asks for one more. With `QueuePool` all of them wait for
their whole time, and are told to raise the size.
"""

from __future__ import annotations

import gc
import pickle
import threading
import time

import pytest
from sqlalchemy import exc

import poolproof
from plugins.threads import Task, assert_whole, eventually, wait_for_waiters

pytestmark = [
    pytest.mark.difference,
    pytest.mark.parametrize("pool_class", ["poolproof"], indirect=True),
]


def warnings(caplog):
    return [text for text in caplog.messages if "waits here for one more" in text]


def nested_request(pool, together, timeouts):
    """Take two connections, one inside the other, as an audit log does."""
    with pool.connect():
        together.wait(10)
        try:
            pool.connect().close()
        except exc.TimeoutError as error:
            error.__traceback__ = None
            timeouts.append(error)


def test_it_is_said_at_once_with_stacks_and_a_number_that_is_enough(make_pool, caplog):
    pool = make_pool(pool_size=3, max_overflow=0, timeout=20, logging_name="orders")
    together, timeouts = threading.Barrier(3), []
    with poolproof.deadline(20):
        tasks = [Task(nested_request, pool, together, timeouts) for _ in range(3)]
        eventually(lambda: warnings(caplog))
    assert pool.stats().waiting == 3  # and nobody has been refused
    (text,) = warnings(caplog)
    assert "'orders'" in text
    assert "3 callers hold or want one, and one of them holds 1" in text
    assert "max_overflow of 6 is always enough" in text
    assert text.count("in nested_request\n") == 3
    assert text.count("waits at:\n") == 3
    # One of them gives up: the others go on.
    pool._timeout = 0
    fairy = next(iter(pool._entries)).lent_to()
    fairy.close()
    for task in tasks:
        task.result()
    assert timeouts == []


def test_who_runs_out_of_time_is_told_what_was_so(make_pool, dbapi, caplog):
    pool = make_pool(pool_size=2, max_overflow=0, timeout=0.3)
    together, timeouts = threading.Barrier(2), []
    tasks = [Task(nested_request, pool, together, timeouts) for _ in range(2)]
    for task in tasks:
        task.result()
    assert 1 <= len(timeouts) <= 2
    error = timeouts[0]
    assert type(error) is poolproof.NestedCheckout
    assert isinstance(error, poolproof.PoolTimeout)
    assert isinstance(error, exc.TimeoutError)
    assert error.waited >= 0.3  # as long as with QueuePool
    assert (error.callers, error.held, error.most, error.enough) == (2, 1, 1, 4)
    assert "2 callers with 2 connections each need 4" in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is poolproof.NestedCheckout
    assert str(again) == str(error)
    assert (again.callers, again.held, again.most) == (2, 1, 1)
    assert len(warnings(caplog)) == 1
    assert_whole(pool, dbapi, 2)


def test_one_thread_alone_can_do_it(make_pool, caplog):
    pool = make_pool(pool_size=2, max_overflow=0, timeout=0.05)
    with (
        pool.connect(),
        pool.connect(),
        pytest.raises(poolproof.NestedCheckout) as caught,
    ):
        pool.connect()
    caught.value.__traceback__ = None
    assert (caught.value.callers, caught.value.held, caught.value.enough) == (1, 2, 3)
    assert len(warnings(caplog)) == 1


def test_next_time_it_says_where_the_connection_was_checked_out(make_pool, caplog):
    pool = make_pool(pool_size=1, max_overflow=0, timeout=0.02)

    def take_the_first():
        return pool.connect()

    for _ in range(2):
        held = take_the_first()
        with pytest.raises(poolproof.NestedCheckout) as caught:
            pool.connect()
        caught.value.__traceback__ = None
        held.close()
        pool.nests._said_at = -60.0  # a minute passes
    first, second = warnings(caplog)
    assert "is remembered from now on" in first
    assert "in take_the_first\n    return pool.connect()" in second


def test_it_is_not_said_again_and_again(make_pool, caplog):
    pool = make_pool(pool_size=1, max_overflow=0, timeout=0.01)
    with pool.connect():
        for _ in range(5):
            with pytest.raises(poolproof.NestedCheckout) as caught:
                pool.connect()
            caught.value.__traceback__ = None
    assert len(warnings(caplog)) == 1


def test_last_one_alone_is_refused_early_where_that_is_asked_for(make_pool, dbapi):
    pool = make_pool(pool_size=3, max_overflow=0, timeout=20, nested_timeout=0)
    together, timeouts = threading.Barrier(3), []
    began = time.monotonic()
    tasks = [Task(nested_request, pool, together, timeouts) for _ in range(3)]
    for task in tasks:
        task.result()
    assert [type(error) for error in timeouts] == [poolproof.NestedCheckout]
    assert time.monotonic() - began < 15  # and not the 20 s that one may wait
    assert_whole(pool, dbapi, 3)


class TestFalseAlarms:
    """Nothing is said, or nobody is refused, where something may come back."""

    def test_one_holder_at_work_is_enough(self, make_pool, caplog):
        pool = make_pool(pool_size=2, max_overflow=0)
        go_on = threading.Event()

        def work():
            with pool.connect():
                assert go_on.wait(20)

        worker = Task(work)
        eventually(lambda: pool.checkedout() == 1)
        waiter = Task(nested_request, pool, threading.Barrier(1), [])
        wait_for_waiters(pool, 1)
        go_on.set()
        worker.result()
        waiter.result()
        assert warnings(caplog) == []

    def test_many_who_hold_nothing_wait_in_peace(self, make_pool, caplog):
        pool = make_pool(pool_size=1, max_overflow=0)
        held = pool.connect()
        waiters = [Task(lambda: pool.connect().close()) for _ in range(5)]
        wait_for_waiters(pool, 5)
        held.close()
        for waiter in waiters:
            waiter.result()
        assert warnings(caplog) == []

    def test_what_was_handed_to_another_thread_comes_back(self, make_pool, caplog):
        """As with QueuePool: the alarm is false, and costs a line in the log."""
        pool = make_pool(pool_size=1, max_overflow=0, timeout=20)
        handed = [pool.connect()]

        def return_it():
            wait_for_waiters(pool, 1)
            handed.pop().close()

        other = Task(return_it)
        pool.connect().close()
        other.result()
        assert len(warnings(caplog)) == 1

    def test_what_garbage_collection_returns_comes_back(self, make_pool):
        pool = make_pool(pool_size=1, max_overflow=0, timeout=20)
        ring = [pool.connect()]
        ring.append(ring)
        del ring

        def collect():
            wait_for_waiters(pool, 1)
            gc.collect()

        other = Task(collect)
        pool.connect().close()
        other.result()

    def test_connection_of_an_ended_thread_is_a_leak_and_no_ring(
        self, make_pool, caplog
    ):
        pool = make_pool(pool_size=1, max_overflow=0, timeout=0.05)
        leaked = Task(pool.connect).result()
        with pytest.raises(exc.TimeoutError) as caught:
            pool.connect()
        caught.value.__traceback__ = None
        assert type(caught.value) is poolproof.PoolTimeout
        assert warnings(caplog) == []
        leaked.close()

    def test_caller_with_less_time_lets_the_others_go_on(self, make_pool):
        pool = make_pool(pool_size=2, max_overflow=0, timeout=20)
        together, timeouts = threading.Barrier(2), []

        def hurry():
            with poolproof.deadline(0.2), pool.connect():
                together.wait(10)
                pool.connect()

        hurried = Task(hurry)
        patient = Task(nested_request, pool, together, timeouts)
        with pytest.raises(poolproof.NestedCheckout) as caught:
            hurried.result()
        caught.value.__traceback__ = None
        patient.result()
        assert timeouts == []


def test_interruption_of_the_one_who_says_it_loses_no_slot(make_pool, dbapi):
    pool = make_pool(pool_size=1, max_overflow=0, timeout=20)

    class Interrupted(BaseException):
        pass

    def interrupt(record):
        if record.levelname == "WARNING":
            raise Interrupted
        return True

    with pool.connect():
        pool.logger.addFilter(interrupt)
        try:
            with pytest.raises(Interrupted) as caught:
                pool.connect()
        finally:
            pool.logger.removeFilter(interrupt)
        assert pool.stats().waiting == 0
    caught.value.__traceback__ = None
    assert_whole(pool, dbapi, 1)
