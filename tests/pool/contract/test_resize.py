"""`resize`, `warm` and `drain`: other bounds, some ahead of need, all of them new."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import exc

import poolproof
from plugins.pools import rest
from plugins.threads import Task, assert_whole, eventually, wait_for_waiters

pytestmark = pytest.mark.difference


@pytest.fixture
def pool_class():
    return poolproof.Pool


def taken_and_returned(pool):
    pool.connect().close()


# --- resize ---


def test_difference_callers_who_wait_get_what_there_is_more(make_pool, dbapi):
    pool = make_pool(pool_size=1, max_overflow=0)
    with pool.connect():
        waiting = [Task(taken_and_returned, pool) for _ in range(3)]
        wait_for_waiters(pool, 3)
        pool.resize(4)
        for task in waiting:
            task.result()
    assert (pool.size(), pool.stats().max_overflow) == (4, 0)
    assert_whole(pool, dbapi, 4)


def test_difference_below_what_is_out_nobody_gets_one_more(make_pool, dbapi):
    pool = make_pool(pool_size=4, max_overflow=0)
    taken = [pool.connect() for _ in range(4)]
    pool.resize(2)
    waiting = Task(taken_and_returned, pool)
    wait_for_waiters(pool, 1)
    for left in (3, 2):
        taken.pop().close()
        assert (len(dbapi.open), pool.stats().waiting) == (left, 1)
    taken.pop().close()
    waiting.result()
    taken.pop().close()
    assert_whole(pool, dbapi, 2)


def test_difference_what_rests_beyond_the_bounds_is_closed_at_once(make_pool, dbapi):
    pool = make_pool(pool_size=5, max_overflow=3)
    rest(pool, 5)
    pool.resize(2, 0)
    assert (len(dbapi.open), pool.checkedin()) == (2, 2)
    assert pool.stats().discarded == {"resized": 3}
    assert_whole(pool, dbapi, 2)


def test_difference_no_bound_at_all_and_back(make_pool, dbapi):
    pool = make_pool(pool_size=1, max_overflow=0)
    pool.resize(0)
    taken = [pool.connect() for _ in range(30)]
    assert (pool.size(), pool.stats().max_overflow) == (0, -1)
    pool.resize(1, 1)
    for one in taken:
        one.close()
    assert len(dbapi.open) == 1
    assert_whole(pool, dbapi, 2)


@pytest.mark.parametrize(
    ("size", "max_overflow", "named"),
    [
        (-1, 0, "pool_size"),
        ("5", 0, "pool_size"),
        (True, 0, "pool_size"),
        (3, 1.5, "max_overflow"),
        (1, 0, "min_idle"),
    ],
)
def test_difference_wrong_bounds_are_refused_and_change_nothing(
    make_pool, size, max_overflow, named
):
    pool = make_pool(pool_size=3, max_overflow=1, min_idle=2)
    with pytest.raises(exc.ArgumentError, match=named):
        pool.resize(size, max_overflow)
    assert (pool.size(), pool.stats().max_overflow) == (3, 1)


def test_difference_a_pool_that_takes_its_place_has_the_bounds(make_pool):
    pool = make_pool(pool_size=3, max_overflow=1)
    pool.resize(7, 2)
    successor = pool.recreate()
    assert (successor.size(), successor.stats().max_overflow) == (7, 2)


def test_difference_bounds_that_two_threads_set_are_those_of_one(make_pool, dbapi):
    pool = make_pool(pool_size=1, max_overflow=0)
    start = threading.Barrier(2)

    def change(sizes):
        start.wait()
        for size in sizes:
            pool.resize(size, 0)
            pool.connect().close()

    for task in [Task(change, [3, 1] * 100), Task(change, [4, 2] * 100)]:
        task.result()
    assert pool.size() in {1, 2}
    assert_whole(pool, dbapi, pool.size())


# --- warm ---


def test_difference_warm_opens_what_is_asked_and_counts_no_checkout(make_pool, dbapi):
    pool = make_pool(pool_size=5)
    assert pool.warm(3) == 3
    assert pool.warm(2) == 3
    assert (dbapi.connects, pool.stats().checkouts_total) == (3, 0)
    assert_whole(pool, dbapi, 15)


def test_difference_warm_opens_no_more_than_would_be_kept(make_pool, dbapi):
    pool = make_pool(pool_size=3, max_overflow=5)
    with pool.connect(), pool.connect():
        assert pool.warm(3) == 1
    assert len(dbapi.open) == 3


@pytest.mark.parametrize("count", [-1, 4, "1", 1.0, True])
def test_difference_warm_refuses_what_could_not_be_kept(make_pool, dbapi, count):
    pool = make_pool(pool_size=3)
    with pytest.raises(exc.ArgumentError, match="count"):
        pool.warm(count)
    assert dbapi.connects == 0


def test_difference_warm_says_what_connecting_ended_with(make_pool, dbapi):
    pool = make_pool(pool_size=3, max_overflow=0)
    pool.warm(1)
    dbapi.script["connect"] = dbapi.OperationalError("away")
    with pytest.raises(dbapi.OperationalError, match="away"):
        pool.warm(3)
    assert pool.checkedin() == 1
    assert_whole(pool, dbapi, 3)


# --- drain ---


def numbers(dbapi):
    return sorted(dbapi.open)


def test_difference_what_rests_is_replaced_at_once_the_new_one_first(make_pool, dbapi):
    pool = make_pool(pool_size=3, max_overflow=1)
    rest(pool, 3)
    assert pool.drain() == 3
    assert (numbers(dbapi), pool.checkedin()) == ([4, 5, 6], 3)
    order = [call for call in dbapi.calls if call.startswith(("connect", "close"))]
    assert order[3:] == [
        *("connect 4", "close 1", "connect 5", "close 2"),
        *("connect 6", "close 3"),
    ]
    assert pool.stats().discarded == {"drained": 3}
    assert_whole(pool, dbapi, 4)


def test_difference_without_room_for_both_never_more_than_there_may_be(
    make_pool, dbapi
):
    pool = make_pool(pool_size=3, max_overflow=0)
    rest(pool, 3)
    assert pool.drain() == 3
    assert (numbers(dbapi), dbapi.peak) == ([4, 5, 6], 3)
    assert_whole(pool, dbapi, 3)


@pytest.mark.parametrize("lives", [{}, {"max_idle": None, "max_lifetime": None}])
def test_difference_what_is_out_is_closed_when_it_comes_back(make_pool, dbapi, lives):
    pool = make_pool(pool_size=3, **lives)
    taken = [pool.connect() for _ in range(2)]
    assert pool.drain() == 0
    assert numbers(dbapi) == [1, 2]  # the holders go on
    for one in taken:
        one.cursor()
        one.close()
    eventually(lambda: numbers(dbapi) == [])
    assert pool.stats().discarded == {"drained": 2}
    assert_whole(pool, dbapi, 13)


def test_difference_what_goes_from_hand_to_hand_is_replaced_between(make_pool, dbapi):
    pool = make_pool(pool_size=1, max_overflow=0)
    fairy = pool.connect()
    pool.drain()
    waiting = Task(lambda: pool.connect().dbapi_connection.number)
    wait_for_waiters(pool, 1)
    fairy.close()
    assert waiting.result() == 2
    assert_whole(pool, dbapi, 1)


def test_difference_what_was_being_opened_is_old_as_well(make_pool, dbapi):
    pool = make_pool(pool_size=2)
    begun, drained = threading.Event(), threading.Event()

    def wait(_connection):
        begun.set()
        assert drained.wait(60)

    dbapi.script["connect"] = wait
    taking = Task(pool.connect)
    assert begun.wait(60)
    dbapi.script.clear()
    pool.drain()
    drained.set()
    taking.result().close()
    eventually(lambda: numbers(dbapi) == [])
    assert_whole(pool, dbapi, 12)


def test_difference_what_cannot_be_replaced_is_kept_and_lent(make_pool, dbapi):
    pool = make_pool(pool_size=3, max_overflow=1)
    rest(pool, 3)
    dbapi.script["connect"] = dbapi.OperationalError("away")
    with pytest.raises(dbapi.OperationalError, match="away"):
        pool.drain()
    assert numbers(dbapi) == [1, 2, 3]
    with pool.connect() as one, pool.connect() as two:
        assert {one.dbapi_connection.number, two.dbapi_connection.number} <= {1, 2, 3}
    dbapi.script.clear()
    assert pool.drain() == 3
    assert_whole(pool, dbapi, 4)


def test_difference_callers_meet_no_gap(make_pool, dbapi):
    pool = make_pool(pool_size=3, max_overflow=1)
    rest(pool, 3)
    done = threading.Event()
    old = set(numbers(dbapi))

    def work():
        count = 0
        while not done.is_set():
            with pool.connect() as fairy:
                fairy.cursor().execute("select 1")
            count += 1
        return count

    tasks = [Task(work) for _ in range(3)]
    for _ in range(20):
        pool.drain()
    done.set()
    assert all(task.result() for task in tasks)
    eventually(lambda: not old & set(numbers(dbapi)))
    assert dbapi.peak <= 4
    assert_whole(pool, dbapi, 4)


def test_difference_an_empty_pool_has_nothing_to_replace(make_pool, dbapi):
    pool = make_pool()
    assert pool.drain() == 0
    assert_whole(pool, dbapi, 15)
