"""Connections that are dropped without being closed."""

from __future__ import annotations

import gc
import threading

import pytest
from sqlalchemy import event

from plugins.threads import Task, assert_whole, wait_for_waiters


class Cycle:
    """Garbage that only the collector finds, with a connection in it."""

    def __init__(self, fairy):
        self.fairy = fairy
        self.itself = self


@pytest.fixture
def eager_collector():
    """Collect garbage at nearly every allocation."""
    before = gc.get_threshold()
    gc.set_threshold(1, 2, 2)
    yield
    gc.set_threshold(*before)


def test_dropped_connection_comes_back_rolled_back(make_pool, dbapi):
    pool = make_pool(pool_size=1, max_overflow=0, timeout=0)
    fairy = pool.connect()
    dbapi.take_calls()
    del fairy
    gc.collect()
    assert dbapi.take_calls() == ["rollback 1"]
    assert (pool.checkedin(), pool.checkedout()) == (1, 0)
    with pool.connect() as again:
        assert again.dbapi_connection.number == 1


def test_connection_in_a_cycle_comes_back_at_the_next_collection(make_pool, dbapi):
    pool = make_pool(pool_size=1, max_overflow=0, timeout=0)
    Cycle(pool.connect())
    gc.collect()
    assert (pool.checkedin(), pool.checkedout()) == (1, 0)
    assert_whole(pool, dbapi, 1)


def test_collection_serves_a_waiter(make_pool):
    pool = make_pool(pool_size=1, max_overflow=0)
    kept = [pool.connect()]
    waiter = Task(pool.connect)
    wait_for_waiters(pool, 1)
    kept.clear()
    gc.collect()
    waiter.result().close()


def test_dropped_overflow_connection_is_closed(make_pool, dbapi):
    pool = make_pool(pool_size=1, max_overflow=1)
    first, second = pool.connect(), pool.connect()
    first.close()
    del second
    gc.collect()
    assert list(dbapi.open) == [1]
    assert (pool.checkedin(), pool.checkedout()) == (1, 0)


def test_failing_reset_of_a_dropped_connection_loses_no_slot(make_pool, dbapi):
    pool = make_pool(pool_size=1, max_overflow=0, timeout=0)
    fairy = pool.connect()
    dbapi.script["rollback"] = dbapi.OperationalError("gone")
    del fairy
    gc.collect()
    assert dbapi.open == {}
    assert_whole(pool, dbapi, 1)


def test_dropped_connection_of_an_engine_comes_back(stub_engine, dbapi):
    engine = stub_engine(pool_size=1, max_overflow=0, pool_timeout=0)
    connection = engine.connect()
    connection.exec_driver_sql("select 1")
    del connection
    gc.collect()
    assert engine.pool.checkedout() == 0
    assert_whole(engine.pool, dbapi, 1)


def test_connections_dropped_by_many_threads_come_back(make_pool, dbapi):
    pool = make_pool(pool_size=3, max_overflow=0)

    def drop():
        for _ in range(50):
            fairy = pool.connect()
            del fairy

    for task in [Task(drop) for _ in range(8)]:
        task.result()
    gc.collect()
    assert dbapi.peak <= 3
    assert_whole(pool, dbapi, 3)


@pytest.mark.parametrize(("size", "overflow"), [(3, 0), (1, 2)])
@pytest.mark.usefixtures("eager_collector")
@pytest.mark.quick("socket")
def test_check_in_by_the_collector_in_the_middle_of_anything_does_not_deadlock(
    make_pool, dbapi, size, overflow
):
    pool = make_pool(pool_size=size, max_overflow=overflow)
    stop = threading.Event()

    def collect():
        while not stop.is_set():
            gc.collect()

    def drop():
        for turn in range(200):
            fairy = pool.connect()
            if turn % 3:
                Cycle(fairy)
            else:
                fairy.close()
            del fairy
            pool.status()

    collector = Task(collect)
    try:
        for task in [Task(drop) for _ in range(8)]:
            task.result(50)
    finally:
        stop.set()
        collector.result()
    gc.collect()
    assert_whole(pool, dbapi, size + overflow)


@pytest.mark.usefixtures("eager_collector")
def test_collection_inside_the_listeners_does_not_deadlock(make_pool, dbapi):
    pool = make_pool(pool_size=4, max_overflow=0)

    def collect(*_arguments):
        gc.collect()

    for name in ("connect", "checkout", "reset", "checkin", "close"):
        event.listen(pool, name, collect)

    def drop():
        for _ in range(5):
            Cycle(pool.connect())
            pool.connect().close()

    for task in [Task(drop) for _ in range(4)]:
        task.result(50)
    for name in ("connect", "checkout", "reset", "checkin", "close"):
        event.remove(pool, name, collect)
    gc.collect()
    assert_whole(pool, dbapi, 4)
