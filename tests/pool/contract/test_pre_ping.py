"""A connection is asked before it is handed out."""

from __future__ import annotations

import pytest
from sqlalchemy import event, exc

import poolproof
from plugins.outages import try_now


@pytest.fixture
def engine(stub_engine, pool_class):
    # True asks where a look cannot tell (tests/pool/test_ping.py); here each
    # checkout is to ask.
    always = "always" if pool_class is poolproof.Pool else True
    return stub_engine(
        pool_pre_ping=always, pool_size=2, max_overflow=0, pool_timeout=0
    )


def test_new_connection_is_not_asked(engine, dbapi):
    engine.raw_connection().close()
    assert "execute 1" not in dbapi.calls


def test_idle_connection_is_asked(engine, dbapi):
    engine.raw_connection().close()
    dbapi.take_calls()
    engine.raw_connection().close()
    assert dbapi.calls[0] in {"cursor 1", "execute 1"}
    assert dbapi.connects == 0


def test_lost_connection_is_replaced_and_nobody_notices(engine, dbapi):
    engine.raw_connection().close()

    def lost(connection):
        if connection.number == 1:
            message = "server closed the connection unexpectedly"
            raise dbapi.OperationalError(message)

    dbapi.script["execute"] = lost
    fairy = engine.raw_connection()
    assert fairy.dbapi_connection.number == 2
    fairy.close()
    assert list(dbapi.open) == [2], (engine.pool.stats(), dbapi.calls)


def test_lost_connections_are_replaced_each_or_all(engine, dbapi, clock):
    for one in [engine.raw_connection(), engine.raw_connection()]:
        one.close()
    clock.advance(1)

    def lost(connection):
        if connection.number <= 2:
            message = "server closed the connection unexpectedly"
            raise dbapi.OperationalError(message)

    dbapi.script["execute"] = lost
    taken = [engine.raw_connection(), engine.raw_connection()]
    assert {one.dbapi_connection.number for one in taken} == {3, 4}
    for one in taken:
        one.close()


@pytest.mark.difference
def test_lost_connection_costs_the_whole_pool_or_one(engine, dbapi, clock, pool_class):
    for one in [engine.raw_connection(), engine.raw_connection()]:
        one.close()
    clock.advance(1)
    dbapi.script["execute"] = dbapi.OperationalError("server closed the connection")
    first = engine.raw_connection()
    dbapi.script.clear()
    second = engine.raw_connection()
    new = {first.dbapi_connection.number, second.dbapi_connection.number} - {1, 2}
    # Each of ours is looked at by itself.
    assert len(new) == (1 if pool_class is poolproof.Pool else 2)
    first.close()
    second.close()


@pytest.mark.difference
def test_error_that_is_no_disconnect_reaches_the_caller_or_costs_the_connection(
    engine, dbapi, pool_class
):
    engine.raw_connection().close()
    dbapi.script["execute"] = dbapi.ProgrammingError("no such thing")
    if pool_class is poolproof.Pool:
        # No answer is no answer.
        fairy = engine.raw_connection()
        assert fairy.dbapi_connection.number == 2
        fairy.close()
        return
    for _ in range(3):
        with pytest.raises((dbapi.ProgrammingError, exc.ProgrammingError)):
            engine.raw_connection()
        assert engine.pool.checkedout() == 0
        dbapi.script.clear()
        engine.raw_connection().close()
        dbapi.script["execute"] = dbapi.ProgrammingError("no such thing")


def test_server_that_is_gone_is_an_error_and_loses_no_slot(engine, dbapi):
    for one in [engine.raw_connection(), engine.raw_connection()]:
        one.close()
    lost = dbapi.OperationalError("server closed the connection unexpectedly")
    dbapi.script |= {"execute": lost, "connect": dbapi.OperationalError("refused")}
    for _ in range(5):
        with pytest.raises((dbapi.OperationalError, exc.OperationalError)):
            engine.raw_connection()
        assert engine.pool.checkedout() == 0
    dbapi.script.clear()
    try_now(engine.pool)
    taken = [engine.raw_connection(), engine.raw_connection()]
    for one in taken:
        one.close()


def test_ping_is_before_the_checkout_event(engine, dbapi):
    event.listen(engine, "checkout", lambda *_: dbapi.calls.append("event 1"))
    engine.raw_connection().close()
    dbapi.take_calls()
    engine.raw_connection().close()
    steps = [call for call in dbapi.calls if call in {"execute 1", "event 1"}]
    assert steps == ["execute 1", "event 1"]
