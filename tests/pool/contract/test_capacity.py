"""How many connections there may be, and the numbers that tell."""

from __future__ import annotations

import pytest
from sqlalchemy import exc


def numbers(pool):
    return pool.size(), pool.checkedin(), pool.overflow(), pool.checkedout()


def test_nothing_is_opened_before_somebody_asks(make_pool, dbapi):
    pool = make_pool(pool_size=3)
    assert dbapi.calls == []
    assert numbers(pool) == (3, 0, -3, 0)


def test_defaults_are_five_ten_and_thirty_seconds(pool_class, dbapi):
    pool = pool_class(dbapi.connect)
    assert (pool.size(), pool.timeout()) == (5, 30.0)
    taken = [pool.connect() for _ in range(15)]
    assert numbers(pool) == (5, 0, 10, 15)
    for one in taken:
        one.close()
    pool.dispose()


def test_numbers_are_right_after_each_step(make_pool):
    pool = make_pool(pool_size=2, max_overflow=1)
    seen = [numbers(pool)]
    taken = []
    for _ in range(3):
        taken.append(pool.connect())
        seen.append(numbers(pool))
    for one in taken:
        one.close()
        seen.append(numbers(pool))
    assert seen == [
        (2, 0, -2, 0),
        (2, 0, -1, 1),
        (2, 0, 0, 2),
        (2, 0, 1, 3),
        (2, 1, 1, 2),
        (2, 2, 1, 1),
        (2, 2, 0, 0),
    ]


def test_numbers_are_right_when_idle_connections_are_used_again(make_pool, dbapi):
    pool = make_pool(pool_size=2, max_overflow=0)
    for _ in range(3):
        with pool.connect():
            assert numbers(pool) == (2, 0, -1, 1)
        assert numbers(pool) == (2, 1, -1, 0)
    assert dbapi.connects == 1


def test_status_is_the_same_sentence_as_before(make_pool):
    pool = make_pool(pool_size=2, max_overflow=3)
    first, second, third = (pool.connect() for _ in range(3))
    first.close()
    assert pool.status() == (
        "Pool size: 2  Connections in pool: 1 "
        "Current Overflow: 1 Current Checked out connections: 2"
    )
    second.close()
    third.close()


def test_connection_beyond_the_overflow_is_refused(make_pool, dbapi):
    pool = make_pool(pool_size=2, max_overflow=1, timeout=0)
    taken = [pool.connect() for _ in range(3)]
    with pytest.raises(exc.TimeoutError):
        pool.connect()
    assert dbapi.connects == 3
    for one in taken:
        one.close()


def test_overflow_connection_is_closed_when_it_comes_back_to_a_full_pool(
    make_pool, dbapi
):
    pool = make_pool(pool_size=1, max_overflow=2)
    taken = [pool.connect() for _ in range(3)]
    for one in taken:
        one.close()
    assert list(dbapi.open) == [1]
    assert [call for call in dbapi.calls if "close" in call] == ["close 2", "close 3"]
    assert numbers(pool) == (1, 1, 0, 0)


def test_size_zero_has_no_limit_and_keeps_every_connection(make_pool, dbapi):
    pool = make_pool(pool_size=0, timeout=0)
    taken = [pool.connect() for _ in range(40)]
    assert numbers(pool) == (0, 0, 0, 40)
    for one in taken:
        one.close()
    assert numbers(pool) == (0, 40, 0, 0)
    assert len(dbapi.open) == 40
    with pool.connect():
        assert numbers(pool) == (0, 39, 0, 1)
    assert dbapi.connects == 40


@pytest.mark.parametrize("overflow", [0, -5])
def test_size_zero_does_not_look_at_the_overflow(make_pool, overflow):
    pool = make_pool(pool_size=0, max_overflow=overflow, timeout=0)
    taken = [pool.connect() for _ in range(3)]
    for one in taken:
        one.close()
    assert pool.checkedin() == 3


def test_overflow_minus_one_has_no_limit_and_keeps_only_the_size(make_pool, dbapi):
    pool = make_pool(pool_size=2, max_overflow=-1, timeout=0)
    taken = [pool.connect() for _ in range(40)]
    assert numbers(pool) == (2, 0, 38, 40)
    for one in taken:
        one.close()
    assert numbers(pool) == (2, 2, 0, 0)
    assert len(dbapi.open) == 2


@pytest.mark.parametrize("pool_class", ["poolproof"], indirect=True)
def test_every_overflow_below_zero_has_no_limit(make_pool):
    """QueuePool calls itself without end there, unless its size is 0."""
    pool = make_pool(pool_size=1, max_overflow=-5, timeout=0)
    taken = [pool.connect() for _ in range(9)]
    assert numbers(pool) == (1, 0, 8, 9)
    for one in taken:
        one.close()
    assert pool.stats().max_overflow == -1


def test_huge_size_costs_nothing(make_pool):
    pool = make_pool(pool_size=10**9, max_overflow=10**9)
    with pool.connect():
        assert numbers(pool) == (10**9, 0, 1 - 10**9, 1)


def test_idle_connections_are_used_in_turn(make_pool, dbapi):
    pool = make_pool(pool_size=3)
    for one in [pool.connect() for _ in range(3)]:
        one.close()
    used = []
    for _ in range(6):
        with pool.connect() as one:
            used.append(one.dbapi_connection.number)
    assert used == [1, 2, 3, 1, 2, 3]
    assert dbapi.connects == 3


def test_lifo_uses_the_connection_that_came_back_last(make_pool, dbapi):
    pool = make_pool(pool_size=3, use_lifo=True)
    for one in [pool.connect() for _ in range(3)]:
        one.close()
    used = []
    for _ in range(3):
        with pool.connect() as one:
            used.append(one.dbapi_connection.number)
    assert used == [3, 3, 3]
    assert dbapi.connects == 3


@pytest.mark.parametrize("use_lifo", [False, True])
def test_idle_connection_is_preferred_to_a_new_one(make_pool, dbapi, use_lifo):
    pool = make_pool(pool_size=1, max_overflow=5, use_lifo=use_lifo)
    pool.connect().close()
    pool.connect().close()
    assert dbapi.connects == 1
