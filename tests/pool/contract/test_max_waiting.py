"""`max_waiting`: as many callers wait as may, and one more is refused at once."""

from __future__ import annotations

import pickle

import pytest

import poolproof
from plugins.threads import Task, assert_whole, wait_for_waiters

pytestmark = pytest.mark.difference


@pytest.fixture
def pool_class():
    return poolproof.Pool


def taken_and_returned(pool):
    pool.connect().close()


def test_difference_one_more_than_may_wait_is_refused_at_once(make_pool, dbapi):
    pool = make_pool(pool_size=1, max_overflow=0, max_waiting=2, logging_name="shop")
    with pool.connect():
        waiting = [Task(taken_and_returned, pool) for _ in range(2)]
        wait_for_waiters(pool, 2)
        # The two others wait for PATIENCE, and so would this one.
        with pytest.raises(poolproof.TooManyWaiting) as caught:
            pool.connect()
    for task in waiting:
        task.result()
    error = caught.value
    assert (error.pool, error.max_waiting, error.waiting) == ("shop", 2, 2)
    assert (error.in_use, error.waited, len(error.holders)) == (1, 0.0, 1)
    assert "2 wait for a connection, and max_waiting lets 2 wait" in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.max_waiting) == (str(error), 2)
    assert pool.totals.timeouts.copy() == {"queue_full": 1}
    assert_whole(pool, dbapi, 1)


def test_difference_zero_lets_nobody_wait_and_lends_what_there_is(make_pool, dbapi):
    pool = make_pool(pool_size=1, max_overflow=0, max_waiting=0)
    for _ in range(3):
        with pool.connect(), pytest.raises(poolproof.TooManyWaiting):
            pool.connect()
    assert_whole(pool, dbapi, 1)


def test_difference_who_is_refused_is_no_sign_of_overload(make_pool):
    pool = make_pool(pool_size=1, max_overflow=0, max_waiting=0)
    with pool.connect(), pytest.raises(poolproof.TooManyWaiting):
        pool.connect()
    assert not pool.stats().newest_first


def test_difference_without_a_bound_all_wait(make_pool, dbapi):
    pool = make_pool(pool_size=1, max_overflow=0)
    with pool.connect():
        waiting = [Task(taken_and_returned, pool) for _ in range(20)]
        wait_for_waiters(pool, 20)
    for task in waiting:
        task.result()
    assert_whole(pool, dbapi, 1)


def test_difference_a_pool_made_again_keeps_the_bound(make_pool):
    pool = make_pool(pool_size=1, max_overflow=0, max_waiting=0).recreate()
    with pool.connect(), pytest.raises(poolproof.TooManyWaiting):
        pool.connect()
    pool.dispose()
