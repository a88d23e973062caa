"""Connections that leave their pool for good."""

from __future__ import annotations

import gc

from sqlalchemy import event


def test_detached_connection_frees_its_slot(make_pool, dbapi):
    pool = make_pool(pool_size=1, max_overflow=0, timeout=0)
    fairy = pool.connect()
    fairy.detach()
    assert fairy.is_detached
    assert fairy.is_valid
    assert pool.checkedout() == 0
    with pool.connect() as other:
        assert other.dbapi_connection.number == 2
        assert pool.checkedout() == 1
    fairy.close()
    assert list(dbapi.open) == [2]


def test_detached_connection_is_closed_for_real(make_pool, dbapi):
    pool = make_pool()
    fairy = pool.connect()
    fairy.detach()
    fairy.close()
    assert dbapi.open == {}
    assert pool.status() == make_pool().status().replace(
        "Connections in pool: 0", f"Connections in pool: {pool.checkedin()}"
    ).replace("Current Overflow: -5", f"Current Overflow: {pool.overflow()}")


def test_detaching_twice_is_the_same_as_once(make_pool, dbapi):
    pool = make_pool(pool_size=1, max_overflow=0, timeout=0)
    fairy = pool.connect()
    fairy.detach()
    fairy.detach()
    fairy.close()
    pool.connect().close()
    assert list(dbapi.open) == [2]


def test_detached_connection_keeps_its_information(make_pool):
    fairy = make_pool().connect()
    fairy.info["key"] = "value"
    fairy.detach()
    assert fairy.info == {"key": "value"}
    assert fairy.record_info is None
    fairy.close()


def test_dispose_does_not_touch_a_detached_connection(make_pool, dbapi):
    pool = make_pool()
    fairy = pool.connect()
    fairy.detach()
    pool.dispose()
    assert list(dbapi.open) == [1]
    fairy.close()


def test_detached_connection_of_an_engine_is_closed(stub_engine, dbapi):
    engine = stub_engine(pool_size=1, max_overflow=0, pool_timeout=0)
    with engine.connect() as connection:
        connection.detach()
        with engine.connect() as other:
            other.exec_driver_sql("select 1")
        connection.exec_driver_sql("select 1")
    assert list(dbapi.open) == [2]
    assert engine.pool.checkedout() == 0


def test_dropped_detached_connection_does_not_come_back(make_pool, dbapi):
    pool = make_pool(pool_size=1, max_overflow=0, timeout=0)
    seen = []
    event.listen(pool, "checkin", lambda *_: seen.append("checkin"))
    fairy = pool.connect()
    fairy.detach()
    del fairy
    gc.collect()
    assert seen == []
    with pool.connect() as other:
        assert other.dbapi_connection.number == 2
    assert seen == ["checkin"]
    assert dbapi.connects == 2


def test_listener_of_the_checkout_may_detach(make_pool, dbapi):
    pool = make_pool(pool_size=1, max_overflow=0)
    event.listen(pool, "checkout", lambda _c, _r, fairy: fairy.detach())
    fairy = pool.connect()
    assert fairy.is_detached
    assert pool.checkedout() == 0
    fairy.close()
    assert dbapi.open == {}
