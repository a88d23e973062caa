"""Old connections are replaced at their next checkout."""

from __future__ import annotations

import pytest

from plugins.outages import try_now


@pytest.mark.parametrize(
    ("recycle", "idle", "numbers"),
    [
        (-1, 10**6, [1, 1]),
        (60, 59, [1, 1]),
        (60, 61, [1, 2]),
        (0, 0.5, [1, 2]),
        (0.5, 1, [1, 2]),
    ],
)
def test_connection_older_than_recycle_is_replaced(
    make_pool, clock, recycle, idle, numbers
):
    pool = make_pool(recycle=recycle)
    used = []
    for _ in range(2):
        with pool.connect() as fairy:
            used.append(fairy.dbapi_connection.number)
        clock.advance(idle)
    assert used == numbers


def test_age_counts_from_the_connect_and_not_from_the_last_use(make_pool, clock, dbapi):
    pool = make_pool(recycle=60)
    for _ in range(7):
        pool.connect().close()
        clock.advance(10)
    pool.connect().close()
    assert dbapi.connects == 2


def test_replaced_connection_is_closed_once(make_pool, clock, dbapi):
    pool = make_pool(recycle=60)
    pool.connect().close()
    clock.advance(61)
    dbapi.take_calls()
    pool.connect().close()
    assert dbapi.take_calls() == ["close 1", "connect 2", "rollback 2"]


def test_connection_is_not_replaced_while_it_is_out(make_pool, clock):
    pool = make_pool(recycle=60)
    with pool.connect() as fairy:
        clock.advance(1000)
        assert fairy.is_valid
        assert fairy.dbapi_connection.number == 1


def test_failed_replacement_keeps_the_slot(make_pool, clock, dbapi):
    pool = make_pool(pool_size=1, max_overflow=0, recycle=60, timeout=0)
    pool.connect().close()
    clock.advance(61)
    dbapi.script["connect"] = dbapi.OperationalError("refused")
    for _ in range(3):
        with pytest.raises(dbapi.OperationalError):
            pool.connect()
        assert pool.checkedout() == 0
    dbapi.script.clear()
    try_now(pool)
    pool.connect().close()
    assert len(dbapi.open) == 1
