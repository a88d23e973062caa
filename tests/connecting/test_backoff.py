"""After a failure one caller at a time tries to connect; a success lets all of them go.

The scripted driver says when an attempt ends; what real drivers and a real server make
of it is in test_outage.py. Long, because it is one idea: the order in a queue.
"""

from __future__ import annotations

import threading
import time

import pytest
from sqlalchemy import event

import poolproof
from plugins.dbapi import OperationalError
from plugins.outages import fail_once, postpone, queued, try_to_connect
from plugins.threads import Task, assert_whole, eventually

DOWN = OperationalError("the server is down")
LEAST_S, MOST_S = 0.05, 2.0  # as the pool has them


# --- in good health -----------------------------------------------------------------


def test_healthy_connects_run_side_by_side(make_pool, dbapi):
    together = threading.Barrier(8)
    dbapi.script["connect"] = lambda _: together.wait(10)
    pool = make_pool()
    for task in [Task(pool.connect) for _ in range(8)]:
        task.result().close()
    assert pool.stats().connect_failures == 0


def test_first_failures_of_many_count_as_one_round(make_pool, server):
    """Nobody knew yet: they ran side by side."""
    server.hold = threading.Event()
    pool = make_pool()
    tasks = [Task(try_to_connect, pool) for _ in range(10)]
    eventually(lambda: server.entered == 10)
    server.hold.set()
    assert all(isinstance(task.result(), OperationalError) for task in tasks)
    assert pool.stats().connect_failures == 10
    began = max(begin for begin, _ in server.attempts)
    assert pool._connecting._next_at <= began + 2 * LEAST_S


# --- after a failure ----------------------------------------------------------------


def test_the_attempts_own_caller_is_told_at_once_and_truly(make_pool, server):
    pool = make_pool()
    with pytest.raises(OperationalError, match="the server is down"):
        pool.connect()
    assert len(server.attempts) == 1
    assert pool.checkedout() == 0


@pytest.mark.slow
def test_one_at_a_time_tries_with_growing_pauses(make_pool, dbapi, server):
    pool = make_pool(checkout_timeout=10)
    due = []  # when the pool says that each attempt may begin
    end = time.monotonic() + 2

    def note_and_fail(connection):
        due.append(pool._connecting._next_at)
        server.connect(connection)

    def persist():
        while time.monotonic() < end:
            try_to_connect(pool)

    dbapi.script["connect"] = note_and_fail
    fail_once(pool)
    for task in [Task(persist) for _ in range(20)]:
        task.result(60)
    # Six at the least if nothing is late: 0.05 + 0.1 + ... of the longest pauses.
    within = [begin for begin, _ in server.attempts if begin < end]
    assert 2 <= len(within) <= 20
    for (_, ended), (begin, _), may_begin in zip(
        server.attempts, server.attempts[1:], due[1:], strict=False
    ):
        assert begin >= ended
        assert begin >= may_begin
    assert pool.stats().connect_failures == len(server.attempts)


def test_pauses_are_random_and_grow_to_two_seconds(make_pool, server):
    pool = make_pool()
    connecting = pool._connecting
    longest = [0.0] * 10
    for _ in range(200):
        connecting._recovered()
        for round_ in range(10):
            began = time.monotonic()
            connecting._failed(began, DOWN)
            pause = connecting._next_at - began
            assert LEAST_S <= pause <= min(MOST_S, LEAST_S * 2 ** (round_ + 1))
            longest[round_] = max(longest[round_], pause)
    assert longest[0] > 1.5 * LEAST_S
    assert max(longest[6:]) > 0.8 * MOST_S


def test_pause_counts_from_the_beginning_of_the_attempt(make_pool, server):
    """Who has tried for two seconds has waited long enough."""
    pool = make_pool()
    server.hold = threading.Event()
    tasks = [Task(try_to_connect, pool)]
    eventually(lambda: server.entered == 1)
    time.sleep(2 * LEAST_S)  # as long as the first pause can be
    server.hold.set()
    assert isinstance(tasks[0].result(), OperationalError)
    assert pool._connecting._next_at <= time.monotonic()


def test_those_who_wait_get_the_last_real_error_as_the_cause(make_pool, server):
    pool = make_pool(checkout_timeout=2)
    fail_once(pool)
    postpone(pool)
    tasks = [Task(try_to_connect, pool) for _ in range(5)]
    eventually(lambda: queued(pool) == 4)
    assert pool.checkedout() == 5  # they keep their slots meanwhile
    for task in tasks:
        error = task.result()
        assert isinstance(error, poolproof.PoolTimeout)
        assert isinstance(error.__cause__, OperationalError)
        assert str(error.__cause__) == "the server is down"
        assert "connecting has failed once in a row" in str(error)
        assert "the server is down" in str(error)
        assert 2 <= error.waited < 10
    assert len(server.attempts) == 1
    assert pool.checkedout() == 0


def test_deadline_of_a_block_ends_the_wait(make_pool):
    pool = make_pool()
    fail_once(pool)
    postpone(pool)
    began = time.monotonic()
    with poolproof.deadline(0.1), pytest.raises(poolproof.PoolTimeout):
        pool.connect()
    assert time.monotonic() - began < 10


def test_success_lets_all_of_them_go_side_by_side(make_pool, dbapi, server):
    pool = make_pool(checkout_timeout=20)
    fail_once(pool)
    postpone(pool)
    tasks = [Task(pool.connect) for _ in range(12)]
    eventually(lambda: queued(pool) == 11)
    # One tries; the other eleven meet where they connect.
    first = threading.Event()
    together = threading.Barrier(11)

    def up(_connection):
        if first.is_set():
            together.wait(10)
        first.set()

    dbapi.script["connect"] = up
    pool._connecting._next_at = 0.0
    taken = [task.result() for task in tasks]
    assert pool.stats().connect_failures == 0
    for one in taken:
        one.close()
    assert_whole(pool, dbapi, 20)


def test_success_of_one_who_began_earlier_ends_the_pause(make_pool, server):
    pool = make_pool(checkout_timeout=20)
    server.is_up, server.hold = True, threading.Event()
    early = Task(pool.connect)
    eventually(lambda: server.entered == 1)
    hold, server.hold, server.is_up = server.hold, None, False
    fail_once(pool)
    postpone(pool)
    waiting = Task(pool.connect)
    eventually(lambda: pool._connecting._gate.snapshot()[1] == 1)
    server.is_up = True
    hold.set()
    early.result().close()
    waiting.result().close()


def test_failure_of_one_who_began_before_the_recovery_is_forgotten(make_pool, server):
    pool = make_pool()
    server.hold = threading.Event()
    late = Task(try_to_connect, pool)
    eventually(lambda: server.entered == 1)
    hold, server.hold = server.hold, None
    fail_once(pool)
    server.is_up = True
    pool.connect().close()
    hold.set()
    assert isinstance(late.result(), OperationalError)
    assert pool.stats().connect_failures == 0


def test_idle_connections_are_lent_meanwhile(make_pool, server):
    server.is_up = True
    pool = make_pool()
    pool.connect().close()
    server.is_up = False
    one = pool.connect()
    fail_once(pool)
    postpone(pool)
    one.close()
    pool.connect().close()  # at once


def test_replacing_an_idle_connection_waits_its_turn_as_well(make_pool, server):
    server.is_up = True
    pool = make_pool()
    pool.connect().close()
    server.is_up = False
    one = pool.connect()
    fail_once(pool)
    postpone(pool)
    one.invalidate()
    one.close()
    with poolproof.deadline(0.1), pytest.raises(poolproof.PoolTimeout) as caught:
        pool.connect()
    assert isinstance(caught.value.__cause__, OperationalError)
    assert len(server.attempts) == 2
    assert pool.checkedout() == 0


def test_listener_that_fails_is_no_failure_to_connect(make_pool, server):
    server.is_up = True
    pool = make_pool()

    def refuse(*_):
        raise LookupError

    event.listen(pool, "connect", refuse)
    for _ in range(3):
        with pytest.raises(LookupError):
            pool.connect()
    assert pool.stats().connect_failures == 0
    event.remove(pool, "connect", refuse)
