"""The events of a pool: which, and in which order."""

from __future__ import annotations

import pytest
from sqlalchemy import event, exc

NAMES = (
    "connect",
    "first_connect",
    "checkout",
    "checkin",
    "reset",
    "invalidate",
    "soft_invalidate",
    "close",
    "detach",
    "close_detached",
)


def record_events(target):
    """Listen for every event; return the list that fills with their names."""
    seen = []

    def listener(name):
        def heard(*_arguments):
            seen.append(name)

        return heard

    for name in NAMES:
        event.listen(target, name, listener(name))
    return seen


def take(seen):
    taken = seen[:]
    seen.clear()
    return taken


@pytest.fixture
def pool(make_pool):
    return make_pool(pool_size=1, max_overflow=1)


@pytest.fixture
def seen(pool):
    return record_events(pool)


def test_first_checkout_connects_and_then_checks_out(pool, seen):
    with pool.connect():
        assert take(seen) == ["first_connect", "connect", "checkout"]


def test_check_in_resets_and_then_checks_in(pool, seen):
    fairy = pool.connect()
    take(seen)
    fairy.close()
    assert take(seen) == ["reset", "checkin"]


def test_second_checkout_only_checks_out(pool, seen):
    pool.connect().close()
    take(seen)
    pool.connect().close()
    assert take(seen) == ["checkout", "reset", "checkin"]


def test_first_connect_comes_once_for_a_pool(pool, seen):
    taken = [pool.connect(), pool.connect()]
    assert take(seen).count("first_connect") == 1
    for one in taken:
        one.close()


def test_returned_overflow_connection_is_closed_after_its_check_in(pool, seen):
    taken = [pool.connect(), pool.connect()]
    taken[0].close()
    take(seen)
    taken[1].close()
    assert take(seen) == ["reset", "checkin", "close"]


def test_invalidated_connection_is_closed_and_checked_in_without_a_reset(pool, seen):
    fairy = pool.connect()
    take(seen)
    fairy.invalidate()
    assert take(seen) == ["invalidate", "close", "checkin"]


def test_softly_invalidated_connection_is_replaced_at_its_next_checkout(
    pool, seen, clock
):
    fairy = pool.connect()
    clock.advance(1)
    take(seen)
    fairy.invalidate(soft=True)
    assert take(seen) == ["soft_invalidate"]
    fairy.close()
    assert take(seen) == ["reset", "checkin"]
    clock.advance(1)
    pool.connect().close()
    assert take(seen) == ["close", "connect", "checkout", "reset", "checkin"]


def test_detached_connection_is_reset_and_closed_by_itself(pool, seen):
    fairy = pool.connect()
    take(seen)
    fairy.detach()
    assert take(seen) == ["detach"]
    fairy.close()
    assert take(seen) == ["reset", "close_detached"]


def test_dispose_closes_the_idle_connections(pool, seen):
    pool.connect().close()
    take(seen)
    pool.dispose()
    assert take(seen) == ["close"]


def test_each_event_is_told_the_connection_and_its_record(pool):
    told = []
    event.listen(pool, "connect", lambda c, r: told.append((c, r)))
    event.listen(pool, "checkout", lambda c, r, f: told.append((c, r, f)))
    event.listen(pool, "checkin", lambda c, r: told.append((c, r)))
    fairy = pool.connect()
    connection, record = fairy.dbapi_connection, fairy._connection_record
    assert told == [(connection, record), (connection, record, fairy)]
    del told[:]
    fairy.close()
    assert told == [(connection, record)]


def test_reset_event_tells_what_has_been_done_already(stub_engine):
    engine = stub_engine()
    states = []
    event.listen(engine, "reset", lambda _c, _r, state: states.append(state))
    with engine.connect() as connection:
        connection.exec_driver_sql("select 1")
    engine.raw_connection().close()
    assert [state.transaction_was_reset for state in states] == [True, False]
    assert not any(state.terminate_only for state in states)


def test_record_keeps_its_information_across_checkouts(pool):
    with pool.connect() as fairy:
        fairy.info["seen"] = True
        fairy.record_info["kept"] = True
    with pool.connect() as fairy:
        assert fairy.info == {"seen": True}
        fairy.invalidate()
    with pool.connect() as fairy:
        assert fairy.info == {}
        assert fairy.record_info == {"kept": True}


def test_listeners_may_be_given_as_an_argument(make_pool):
    told = []
    pool = make_pool(events=[(lambda *_: told.append("connect"), "connect")])
    pool.connect().close()
    assert told == ["connect"]


def test_listener_on_the_class_hears_every_pool(pool_class, make_pool):
    told = []

    def heard(*_arguments):
        told.append("checkout")

    event.listen(pool_class, "checkout", heard)
    try:
        make_pool().connect().close()
        make_pool().connect().close()
    finally:
        event.remove(pool_class, "checkout", heard)
    make_pool().connect().close()
    assert told == ["checkout", "checkout"]


def test_listener_on_an_engine_hears_its_pool(stub_engine):
    engine = stub_engine()
    seen = record_events(engine)
    engine.raw_connection().close()
    assert seen == ["first_connect", "connect", "checkout", "reset", "checkin"]


def test_engine_keeps_its_listeners_across_dispose(stub_engine):
    engine = stub_engine()
    seen = record_events(engine)
    engine.raw_connection().close()
    engine.dispose()
    take(seen)
    engine.raw_connection().close()
    assert "connect" in seen
    assert "checkout" in seen


def test_disconnection_in_a_checkout_listener_gets_a_new_connection(pool, dbapi):
    def refuse_the_first(connection, _record, _fairy):
        if connection.number == 1:
            raise exc.DisconnectionError

    event.listen(pool, "checkout", refuse_the_first)
    with pool.connect() as fairy:
        assert fairy.dbapi_connection.number == 2
    assert list(dbapi.open) == [2]
    assert pool.checkedout() == 0


def test_disconnection_of_the_whole_pool_in_a_checkout_listener_replaces_it(
    pool, dbapi, clock
):
    first, second = pool.connect(), pool.connect()
    clock.advance(1)
    first.close()

    def refuse_the_first(connection, _record, _fairy):
        if connection.number == 1:
            raise exc.InvalidatePoolError

    event.listen(pool, "checkout", refuse_the_first)
    clock.advance(1)
    with pool.connect() as fairy:
        assert fairy.dbapi_connection.number == 3
        clock.advance(1)
        second.close()
    clock.advance(1)
    assert dbapi.connects == 3
    assert pool.checkedout() == 0


def test_disconnection_three_times_in_a_row_is_an_error_and_loses_no_slot(pool, dbapi):
    def refuse(_connection, _record, _fairy):
        raise exc.DisconnectionError

    event.listen(pool, "checkout", refuse)
    with pytest.raises(exc.InvalidRequestError, match="This connection is closed"):
        pool.connect()
    event.remove(pool, "checkout", refuse)
    assert pool.checkedout() == 0
    assert dbapi.open == {}
    taken = [pool.connect(), pool.connect()]
    for one in taken:
        one.close()


@pytest.mark.parametrize("name", ["reset", "checkin"])
def test_first_listener_hears_of_the_return_of_what_is_out(pool, name):
    fairy = pool.connect()
    heard = []
    event.listen(pool, name, lambda *_: heard.append(name))
    fairy.close()
    assert heard == [name]


@pytest.mark.parametrize("name", ["checkout", "reset", "checkin"])
def test_listener_of_the_class_hears_at_once_and_until_it_is_removed(pool, name):
    pool.connect().close()
    heard = []

    def hear(*_arguments):
        heard.append(name)

    event.listen(type(pool), name, hear)
    try:
        pool.connect().close()
        assert heard == [name]
    finally:
        event.remove(type(pool), name, hear)
    pool.connect().close()
    assert heard == [name]


def test_listener_of_the_class_hears_of_the_return_of_what_is_out(pool):
    heard = []

    def hear(*_arguments):
        heard.append("checkin")

    fairy = pool.connect()
    event.listen(type(pool), "checkin", hear)
    try:
        fairy.close()
    finally:
        event.remove(type(pool), "checkin", hear)
    assert heard == ["checkin"]
