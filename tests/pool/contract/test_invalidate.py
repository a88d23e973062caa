"""Connections that are declared bad: one, softly, or all of them."""

from __future__ import annotations

import pytest
from sqlalchemy import event, exc

from poolproof.pool import maintenance


@pytest.fixture
def pool(make_pool):
    return make_pool(pool_size=2, max_overflow=0, timeout=0)


def test_invalidated_connection_is_closed_at_once_and_its_slot_kept(pool, dbapi):
    fairy = pool.connect()
    fairy.invalidate()
    assert not fairy.is_valid
    assert dbapi.open == {}
    assert pool.checkedout() == 0
    taken = [pool.connect(), pool.connect()]
    assert {one.dbapi_connection.number for one in taken} == {2, 3}
    for one in taken:
        one.close()


def test_invalidated_connection_gets_no_rollback(pool, dbapi):
    fairy = pool.connect()
    dbapi.take_calls()
    fairy.invalidate()
    fairy.close()
    assert dbapi.take_calls() == ["close 1"]


def test_closing_an_invalidated_connection_does_nothing_more(pool):
    fairy = pool.connect()
    fairy.invalidate()
    before = pool.status()
    fairy.close()
    assert pool.status() == before


@pytest.mark.parametrize("pool_class", ["poolproof"], indirect=True)
def test_the_keeper_leaves_the_slot_of_an_invalidated_connection_alone(pool):
    pool.connect().invalidate()
    maintenance._close_old(pool)
    assert (pool.checkedin(), pool.overflow()) == (1, -1)


def test_invalidating_twice_warns(pool):
    fairy = pool.connect()
    fairy.invalidate()
    with pytest.warns(exc.SAWarning, match="already-closed"):
        fairy.invalidate()
    assert pool.checkedout() == 0


def test_softly_invalidated_connection_may_be_used_until_it_is_returned(
    pool, dbapi, clock
):
    fairy = pool.connect()
    clock.advance(1)
    fairy.invalidate(soft=True)
    assert fairy.is_valid
    fairy.cursor()
    fairy.close()
    assert list(dbapi.open) == [1]
    clock.advance(1)
    with pool.connect() as again:
        assert again.dbapi_connection.number == 2


def test_record_that_is_invalidated_while_idle_connects_anew(pool, dbapi):
    fairy = pool.connect()
    record = fairy._connection_record
    fairy.close()
    record.invalidate()
    assert dbapi.open == {}
    with pool.connect() as again:
        assert again.dbapi_connection.number == 2


def test_invalidating_the_pool_replaces_every_older_connection(pool, clock):
    first, second = pool.connect(), pool.connect()
    second.close()
    clock.advance(1)
    pool._invalidate(first)
    clock.advance(1)
    taken = [pool.connect(), pool.connect()]
    assert {one.dbapi_connection.number for one in taken} == {3, 4}
    for one in taken:
        one.close()


def test_connection_that_is_out_while_the_pool_is_invalidated_is_replaced_later(
    pool, clock
):
    first, second = pool.connect(), pool.connect()
    clock.advance(1)
    pool._invalidate(first)
    assert second.is_valid
    clock.advance(1)
    second.close()
    taken = [pool.connect(), pool.connect()]
    assert {one.dbapi_connection.number for one in taken} == {3, 4}
    for one in taken:
        one.close()


def test_younger_connection_does_not_invalidate_the_pool_again(pool, clock, dbapi):
    old, other = pool.connect(), pool.connect()
    clock.advance(1)
    pool._invalidate(old)
    clock.advance(1)
    other.close()
    for one in [pool.connect(), pool.connect()]:
        one.close()
    connects = dbapi.connects
    for one in [pool.connect(), pool.connect()]:
        one.close()
    assert dbapi.connects == connects


def lose_one_of_two(engine, dbapi, clock):
    """Have one of two connections lost in a statement; return which are used then."""
    for one in [engine.connect(), engine.connect()]:
        one.close()
    clock.advance(1)
    lost = "server closed the connection unexpectedly"
    dbapi.script["execute"] = dbapi.OperationalError(lost)
    with engine.connect() as connection, pytest.raises(exc.DBAPIError) as caught:
        connection.exec_driver_sql("select 1")
    assert caught.value.connection_invalidated
    assert caught.type is exc.OperationalError
    del caught
    dbapi.script.clear()
    clock.advance(1)
    taken = [engine.raw_connection(), engine.raw_connection()]
    numbers = {one.dbapi_connection.number for one in taken}
    for one in taken:
        one.close()
    return numbers


@pytest.mark.parametrize("pool_class", ["queue"], indirect=True)
def test_disconnect_costs_queue_pool_every_connection(stub_engine, dbapi, clock):
    engine = stub_engine(pool_size=2, max_overflow=0)
    assert lose_one_of_two(engine, dbapi, clock) == {3, 4}


@pytest.mark.difference
@pytest.mark.parametrize("pool_class", ["poolproof"], indirect=True)
def test_difference_disconnect_costs_the_one_connection(stub_engine, dbapi, clock):
    """The others show by themselves, when they are looked at, whether they live."""
    engine = stub_engine(pool_size=2, max_overflow=0)
    assert lose_one_of_two(engine, dbapi, clock) == {2, 3}


def test_listener_that_says_disconnect_costs_the_connection(stub_engine, dbapi):
    engine = stub_engine(pool_size=1, max_overflow=0)
    dbapi.script["execute"] = dbapi.ProgrammingError("odd")

    def say_so(context):
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False

    event.listen(engine, "handle_error", say_so)
    with engine.connect() as connection:
        with pytest.raises(exc.ProgrammingError) as caught:
            connection.exec_driver_sql("select 1")
        assert caught.value.connection_invalidated
        del caught
    dbapi.script.clear()
    with engine.connect() as connection:
        connection.exec_driver_sql("select 1")
    assert list(dbapi.open) == [2]
