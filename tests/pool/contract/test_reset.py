"""What happens to an open transaction when a connection comes back."""

from __future__ import annotations

import pytest
from sqlalchemy import event, exc


def calls_of_a_return(pool, dbapi):
    fairy = pool.connect()
    dbapi.take_calls()
    fairy.close()
    return dbapi.take_calls()


@pytest.mark.parametrize("value", ["rollback", True])
def test_rollback_on_return(make_pool, dbapi, value):
    pool = make_pool(reset_on_return=value)
    assert calls_of_a_return(pool, dbapi) == ["rollback 1"]


def test_rollback_is_the_default(make_pool, dbapi):
    assert calls_of_a_return(make_pool(), dbapi) == ["rollback 1"]


def test_commit_on_return(make_pool, dbapi):
    pool = make_pool(reset_on_return="commit")
    assert calls_of_a_return(pool, dbapi) == ["commit 1"]


@pytest.mark.parametrize("value", [None, False, "none"])
def test_nothing_on_return(make_pool, dbapi, value):
    pool = make_pool(reset_on_return=value)
    assert calls_of_a_return(pool, dbapi) == []


def test_wrong_value_is_refused(make_pool):
    with pytest.raises(exc.ArgumentError, match="reset_on_return"):
        make_pool(reset_on_return="bogus")


@pytest.mark.parametrize("value", ["rollback", None])
def test_reset_listener_runs_before_the_rollback(make_pool, dbapi, value):
    pool = make_pool(reset_on_return=value)
    event.listen(pool, "reset", lambda c, _r, _s: dbapi.calls.append(f"own {c.number}"))
    expected = ["own 1"] + ["rollback 1"] * (value is not None)
    assert calls_of_a_return(pool, dbapi) == expected


def test_connection_that_cannot_roll_back_is_closed_and_replaced(make_pool, dbapi):
    pool = make_pool(pool_size=1, max_overflow=0)
    dbapi.script["rollback"] = dbapi.OperationalError("server closed the connection")
    pool.connect().close()
    assert dbapi.open == {}
    assert pool.checkedout() == 0
    dbapi.script.clear()
    with pool.connect() as fairy:
        assert fairy.dbapi_connection.number == 2


def test_engine_does_not_roll_back_twice(stub_engine, dbapi):
    engine = stub_engine()
    with engine.connect() as connection:
        connection.exec_driver_sql("select 1")
        dbapi.take_calls()
    assert dbapi.take_calls() == ["rollback 1"]


def test_detached_connection_is_rolled_back_before_it_is_closed(make_pool, dbapi):
    fairy = make_pool().connect()
    fairy.detach()
    dbapi.take_calls()
    fairy.close()
    assert dbapi.take_calls() == ["rollback 1", "close 1"]
