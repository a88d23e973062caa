"""After a failure an attempt begins twice a second at most; a success lets all go.

The scripted driver says when an attempt ends; what real drivers and a real server make
of it is in test_outage.py, what callers are told in test_answers.py.
"""

from __future__ import annotations

import itertools
import threading
import time

import pytest
from sqlalchemy import event

import poolproof
from plugins.dbapi import OperationalError
from plugins.outages import fail_once, postpone, queued, try_to_connect, under_way
from plugins.threads import Task, assert_whole, eventually

DOWN = OperationalError("the server is down")
LONGEST_S = 0.5  # as the pool has it


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
    assert pool._connecting._next_at <= began + LONGEST_S


# --- after a failure ----------------------------------------------------------------


def test_the_attempts_own_caller_is_told_at_once_and_truly(make_pool, server):
    pool = make_pool()
    with pytest.raises(OperationalError, match=r"^the server is down$"):
        pool.connect()
    assert len(server.attempts) == 1
    assert pool.checkedout() == 0


@pytest.mark.slow
def test_one_at_a_time_tries_with_growing_pauses(make_pool, dbapi, server):
    pool = make_pool()
    due = []  # when the pool says that each attempt may begin
    end = time.monotonic() + 1.6

    def note_and_fail(connection):
        due.append(pool._connecting._next_at)
        server.connect(connection)

    def persist():
        answers = 0
        while time.monotonic() < end:
            try_to_connect(pool)
            answers += 1
            time.sleep(0.001)
        return answers

    fail_once(pool)
    postpone(pool, 0)
    dbapi.script["connect"] = note_and_fail
    answers = sum(task.result(60) for task in [Task(persist) for _ in range(8)])
    begins = [begin for begin, _ in server.attempts]
    # One by itself, then at once, after 0.1, 0.25 and 0.5 s at most, and so on.
    assert 4 <= len(begins) <= 7
    for before, begin in itertools.pairwise(begins[4:]):
        assert begin - before >= 0.9 * LONGEST_S
    assert pool.stats().connect_failures == len(begins)
    assert answers > 100


def test_pauses_are_random_and_grow_to_half_a_second(make_pool, server):
    pool = make_pool()
    connecting = pool._connecting
    pauses = [[] for _ in range(6)]
    for _ in range(50):
        for found in pauses:
            postpone(pool, 0)
            fail_once(pool)
            found.append(connecting._next_at - connecting._began_at)
        connecting._recovered()
    assert pauses[0] == [0] * 50
    for found, most in zip(pauses[1:3], (0.1, 0.25), strict=True):
        assert most / 2 <= min(found) < 0.7 * most
        assert 0.8 * most < max(found) <= most
    for found in pauses[3:]:
        assert min(found) == pytest.approx(LONGEST_S) == max(found)


def test_attempt_without_an_answer_does_not_hold_up_the_next(make_pool, server):
    """The server may be back, and the packets of the first one lost."""
    pool = make_pool(checkout_timeout=20)
    fail_once(pool)
    postpone(pool, 0)
    hold = server.hold = threading.Event()
    first = Task(try_to_connect, pool)
    eventually(lambda: server.entered == 2)
    server.hold, server.is_up = None, True
    one = pool.connect()  # when the next is due
    assert first.is_alive()
    hold.set()
    assert isinstance(first.result(), OperationalError)
    assert pool.stats().connect_failures == 0
    one.close()


def test_success_lets_all_of_them_go_side_by_side(make_pool, dbapi, server):
    pool = make_pool(connect_retry_for=20)
    fail_once(pool)
    postpone(pool)
    tasks = [Task(pool.connect) for _ in range(12)]
    eventually(lambda: queued(pool) == 12)
    # One tries; the other eleven meet where they connect.
    first = threading.Event()
    together = threading.Barrier(11)

    def up(_connection):
        if first.is_set():
            together.wait(10)
        first.set()

    dbapi.script["connect"] = up
    postpone(pool, 0)
    taken = [task.result() for task in tasks]
    assert pool.stats().connect_failures == 0
    for one in taken:
        one.close()
    assert_whole(pool, dbapi, 20)


def test_success_of_one_who_began_earlier_ends_the_pause(make_pool, server):
    pool = make_pool(connect_retry_for=20)
    server.is_up, server.hold = True, threading.Event()
    early = Task(pool.connect)
    eventually(lambda: server.entered == 1)
    hold, server.hold, server.is_up = server.hold, None, False
    fail_once(pool)
    postpone(pool)
    waiting = Task(pool.connect)
    eventually(lambda: queued(pool) == 1)
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
    postpone(pool, 0)
    one = pool.connect()
    hold.set()
    assert isinstance(late.result(), OperationalError)
    assert pool.stats().connect_failures == 0
    one.close()


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


# --- connections that rest, while connecting fails ------------------------------------


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


def test_caller_whose_attempt_fails_takes_one_that_came_to_rest(make_pool, server):
    """As of a role at its connection limit: the others are in order."""
    server.is_up = True
    pool = make_pool()
    held = pool.connect()
    server.is_up, server.hold = False, threading.Event()
    caller = Task(pool.connect)
    eventually(lambda: server.entered == 2)
    raw = held.dbapi_connection
    held.close()
    server.hold.set()
    found = caller.result()
    assert found.dbapi_connection is raw
    assert pool.stats().connect_failures == 1
    found.close()
    assert pool.checkedout() == 0


def test_caller_who_waits_takes_one_that_comes_to_rest(make_pool, dbapi, server):
    server.is_up = True
    pool = make_pool(connect_retry_for=20)
    held = pool.connect()
    raw = held.dbapi_connection
    server.is_up = False
    fail_once(pool)
    postpone(pool)
    waiting = Task(pool.connect)
    eventually(lambda: queued(pool) == 1)
    held.close()
    found = waiting.result()
    assert found.dbapi_connection is raw
    assert server.entered == 2
    found.close()
    server.is_up = True
    postpone(pool, 0)
    assert_whole(pool, dbapi, 20)


def test_entry_that_lost_its_connection_is_not_taken_for_one(make_pool, dbapi, server):
    server.is_up = True
    pool = make_pool()
    kept = pool.connect()
    lost = pool.connect()
    server.is_up = False
    fail_once(pool)
    postpone(pool)
    lost.invalidate()
    lost.close()
    assert pool.checkedin() == 0
    with pytest.raises(OperationalError, match="the server is down"):
        pool.connect()
    assert len(server.attempts) == 3
    kept.close()
    server.is_up = True
    postpone(pool, 0)
    assert_whole(pool, dbapi, 20)


def test_replacing_an_idle_connection_is_answered_as_well(make_pool, server):
    server.is_up = True
    pool = make_pool()
    pool.connect().close()
    pool._recycle = 0
    server.is_up = False
    with pytest.raises(OperationalError, match=r"^the server is down$"):
        pool.connect()
    postpone(pool)
    with pytest.raises(OperationalError, match="not asked again"):
        pool.connect()
    assert len(server.attempts) == 2
    assert pool.checkedout() == 0


# --- callers who would rather wait ----------------------------------------------------


def test_caller_who_would_rather_wait_does_and_is_then_told(make_pool, server):
    pool = make_pool(connect_retry_for=0.3)
    began = time.monotonic()
    first = Task(try_to_connect, pool)
    eventually(lambda: pool.stats().connect_failures)
    postpone(pool)
    for one in [first, *(Task(try_to_connect, pool) for _ in range(4))]:
        error = one.result()
        assert isinstance(error, OperationalError)
        assert "the server is down" in str(error)
    assert time.monotonic() - began >= 0.3
    assert len(server.attempts) <= 5
    assert pool.checkedout() == 0


def test_checkout_that_ends_sooner_says_so_with_the_cause(make_pool, server):
    pool = make_pool(connect_retry_for=20)
    pool._connecting._failed(time.monotonic(), DOWN)
    postpone(pool)
    began = time.monotonic()
    with poolproof.deadline(0.1), pytest.raises(poolproof.PoolTimeout) as caught:
        pool.connect()
    assert time.monotonic() - began < 10
    error = caught.value
    assert isinstance(error.__cause__, OperationalError)
    assert str(error.__cause__) == "the server is down"
    assert "connecting has failed once in a row" in str(error)
    assert under_way(pool) == queued(pool) == 0


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"connect_retry_for": -1}, "connect_retry_for is -1"),
        ({"connect_retry_for": None}, "connect_retry_for is None"),
        ({"connect_retry_for": 9, "checkout_timeout": 5}, "checkout_timeout is 5"),
    ],
)
def test_length_that_cannot_be_meant_is_refused(dbapi, parameters, words):
    with pytest.raises(Exception, match=words):
        poolproof.Pool(dbapi.connect, **parameters)


def test_checkout_lasts_as_much_longer_by_default(make_pool):
    assert make_pool(connect_retry_for=20)._checkout_timeout == 30 + 20 + 5
