"""Many threads, few connections."""

from __future__ import annotations

import collections
import sys
import threading

import pytest
from sqlalchemy import exc

from plugins.threads import Task, assert_whole

THREADS = 16


@pytest.fixture(autouse=True)
def _restless():
    """Let the threads change places as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("use_lifo", [False, True])
@pytest.mark.parametrize(
    ("size", "overflow"), [(1, 0), (3, 2), (5, 0), (0, 0), (2, -1)]
)
def test_no_more_than_the_capacity_is_open_and_everybody_is_served(
    make_pool, dbapi, size, overflow, use_lifo
):
    pool = make_pool(pool_size=size, max_overflow=overflow, use_lifo=use_lifo)
    capacity = size + overflow if size and overflow >= 0 else THREADS
    start = threading.Barrier(THREADS)
    out = collections.Counter()
    twice = []

    def work():
        start.wait(10)
        for _ in range(120):
            fairy = pool.connect()
            number = fairy.dbapi_connection.number
            out[number] += 1
            if out[number] != 1:
                twice.append(number)
            out[number] -= 1
            fairy.close()

    for task in [Task(work) for _ in range(THREADS)]:
        task.result(50)
    assert twice == []
    assert dbapi.peak <= capacity
    assert dbapi.count("rollback") == THREADS * 120
    assert_whole(pool, dbapi, capacity)


def test_connection_is_never_in_two_hands(make_pool, dbapi):
    pool = make_pool(pool_size=3, max_overflow=1)
    holders = {}
    clashes = []

    def work(name):
        for _ in range(300):
            with pool.connect() as fairy:
                number = fairy.dbapi_connection.number
                if holders.setdefault(number, name) != name:
                    clashes.append((number, name))
                if holders.pop(number, None) != name:
                    clashes.append((number, name))

    for task in [Task(work, name) for name in range(THREADS)]:
        task.result(50)
    assert clashes == []
    assert_whole(pool, dbapi, 4)


def test_timeouts_under_load_lose_no_slot(make_pool, dbapi):
    pool = make_pool(pool_size=2, max_overflow=1, timeout=0.001)
    outcomes = []  # appending is atomic

    def hurry():
        for _ in range(40):
            try:
                pool.connect().close()
                outcomes.append("served")
            except exc.TimeoutError:
                outcomes.append("timed out")

    hurried = [Task(hurry) for _ in range(THREADS)]
    for task in hurried:
        task.result(50)
    assert len(outcomes) == THREADS * 40
    with pool.connect(), pool.connect(), pool.connect():
        for task in [Task(hurry) for _ in range(4)]:
            task.result(50)
    assert outcomes.count("timed out") >= 160
    assert dbapi.peak <= 3
    assert_whole(pool, dbapi, 3)


def test_opening_closing_and_invalidating_at_random_keeps_the_limit(make_pool, dbapi):
    pool = make_pool(pool_size=2, max_overflow=2)

    def work(seed):
        for turn in range(100):
            fairy = pool.connect()
            action = (seed * 31 + turn * 17) % 7
            if action == 0:
                fairy.invalidate()
            elif action == 1:
                fairy.invalidate(soft=True)
                fairy.close()
            elif action == 2:
                del fairy
            else:
                fairy.close()

    for task in [Task(work, seed) for seed in range(THREADS)]:
        task.result(50)
    assert dbapi.peak <= 4
    assert_whole(pool, dbapi, 4)


def test_dispose_beside_working_threads_breaks_nothing(stub_engine, dbapi):
    engine = stub_engine(pool_size=2, max_overflow=1)
    stop = threading.Event()

    def work():
        done = 0
        while not stop.is_set() or done == 0:
            with engine.connect() as connection:
                connection.exec_driver_sql("select 1")
            done += 1
        return done

    tasks = [Task(work) for _ in range(6)]
    for _ in range(30):
        engine.dispose()
    stop.set()
    assert all(task.result() > 0 for task in tasks)
    assert_whole(engine.pool, dbapi, 3)
