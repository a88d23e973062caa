"""Intended differences: who is served, and when.  QueuePool promises none of this."""

from __future__ import annotations

import threading
import time

import pytest
from sqlalchemy import exc

from plugins.outages import try_now
from plugins.threads import Task, assert_whole, wait_for_waiters

pytestmark = [
    pytest.mark.difference,
    pytest.mark.parametrize("pool_class", ["poolproof"], indirect=True),
]


def queue_up(pool, served, names):
    """Start one waiter after the other; each notes its name when it is served."""

    def wait_and_note(name):
        with pool.connect():
            served.append(name)

    tasks = []
    for name in names:
        tasks.append(Task(wait_and_note, name))
        wait_for_waiters(pool, len(tasks))
    return tasks


@pytest.mark.parametrize("use_lifo", [False, True])
def test_waiters_are_served_in_the_order_of_their_arrival(make_pool, dbapi, use_lifo):
    pool = make_pool(pool_size=1, max_overflow=0, use_lifo=use_lifo)
    held = pool.connect()
    served = []
    tasks = queue_up(pool, served, range(20))
    held.close()
    for task in tasks:
        task.result()
    assert served == list(range(20))
    assert_whole(pool, dbapi, 1)


def test_newcomer_does_not_overtake_a_waiter(make_pool):
    """The holder asks again at once, as a loop does; the waiter goes first."""
    pool = make_pool(pool_size=1, max_overflow=0)
    held = pool.connect()
    served = []
    tasks = queue_up(pool, served, ["first", "second"])
    held.close()
    with pool.connect():
        served.append("newcomer")
    for task in tasks:
        task.result()
    assert served == ["first", "second", "newcomer"]


def test_newcomer_that_does_not_wait_cannot_take_what_was_handed_over(make_pool):
    pool = make_pool(pool_size=1, max_overflow=0)
    inside, go_on = threading.Event(), threading.Event()

    def take():
        with pool.connect():
            inside.set()
            assert go_on.wait(10)

    held = pool.connect()
    waiter = Task(take)
    wait_for_waiters(pool, 1)
    held.close()
    pool._timeout = 0  # this caller alone does not wait
    with pytest.raises(exc.TimeoutError):
        pool.connect()
    assert inside.wait(10)
    go_on.set()
    waiter.result()


def test_freed_slot_goes_to_the_first_waiter_too(make_pool):
    pool = make_pool(pool_size=1, max_overflow=0)
    held = pool.connect()
    served = []
    tasks = queue_up(pool, served, range(5))
    held.invalidate()
    for task in tasks:
        task.result()
    assert served == list(range(5))


def test_failed_connect_lets_the_next_waiter_try(make_pool, dbapi):
    pool = make_pool(pool_size=1, max_overflow=0)
    held = pool.connect()
    refused = dbapi.OperationalError("refused")
    names, attempts, errors = {}, [], []

    def refuse(_connection):
        attempts.append(names[threading.get_ident()])
        raise refused

    def try_it(name):
        names[threading.get_ident()] = name
        try:
            pool.connect().close()
        except dbapi.OperationalError:
            errors.append(name)

    tasks = []
    for name in range(5):
        tasks.append(Task(try_it, name))
        wait_for_waiters(pool, len(tasks))
    dbapi.script["connect"] = refuse
    held.invalidate()
    for task in tasks:
        task.result()
    # Ours tells an attempt's failure to those behind as well, also to the very next,
    # who then makes none. Each notes its own when its thread runs again.
    assert attempts[0] == 0
    assert attempts == sorted(set(attempts))
    assert sorted(errors) == list(range(5))
    refused.__traceback__ = None
    dbapi.script.clear()
    try_now(pool)
    assert_whole(pool, dbapi, 1)


def test_timed_out_waiter_does_not_swallow_a_connection(make_pool, dbapi):
    """Time-outs and returns race, thousands of times; whoever wins, nothing is lost."""
    pool = make_pool(pool_size=1, max_overflow=0, timeout=0.002)
    outcomes = []  # appending is atomic

    def work():
        for _ in range(150):
            try:
                with pool.connect():
                    time.sleep(0.001)
                outcomes.append("served")
            except exc.TimeoutError:
                outcomes.append("timed out")

    for task in [Task(work) for _ in range(8)]:
        task.result(50)
    assert "served" in outcomes
    assert "timed out" in outcomes
    assert len(outcomes) == 1200
    assert_whole(pool, dbapi, 1)


def test_place_of_a_waiter_that_timed_out_goes_to_the_one_behind_it(make_pool):
    pool = make_pool(pool_size=1, max_overflow=0, timeout=0.1)
    held = pool.connect()
    gone = Task(pool.connect)
    with pytest.raises(exc.TimeoutError):
        gone.result()
    pool._timeout = 20
    behind = Task(lambda: pool.connect().close())
    wait_for_waiters(pool, 1)
    held.close()
    behind.result()


@pytest.mark.alone
@pytest.mark.quick("socket")
def test_thirty_two_threads_on_four_connections_wait_about_equally(make_pool):
    pool = make_pool(pool_size=4, max_overflow=0)
    start = threading.Barrier(32)
    stop = threading.Event()

    def work():
        served, longest = 0, 0.0
        start.wait(10)
        while not stop.is_set():
            began = time.monotonic()
            with pool.connect():
                longest = max(longest, time.monotonic() - began)
                time.sleep(0.001)
            served += 1
        return served, longest

    began = time.monotonic()
    tasks = [Task(work) for _ in range(32)]
    stop.wait(1.0)
    stop.set()
    served, longest = zip(*(task.result() for task in tasks), strict=True)
    # A slot whose next holder a busy machine does not let run goes to another once.
    assert max(served) - min(served) <= max(3, max(served) * 0.2), served
    assert max(longest) < (time.monotonic() - began) / 2
