"""Closing a pool, and making another like it."""

from __future__ import annotations

import gc
import weakref

import pytest
from sqlalchemy import event, exc

from plugins.threads import assert_whole, eventually


def test_idle_connections_are_closed(make_pool, dbapi):
    pool = make_pool(pool_size=3)
    for one in [pool.connect() for _ in range(3)]:
        one.close()
    pool.dispose()
    assert dbapi.open == {}
    assert (pool.checkedin(), pool.checkedout()) == (0, 0)


def test_dispose_of_a_new_pool_does_nothing(make_pool, dbapi):
    make_pool().dispose()
    assert dbapi.calls == []


def test_dispose_twice_is_harmless(make_pool, dbapi):
    pool = make_pool()
    pool.connect().close()
    pool.dispose()
    pool.dispose()
    assert dbapi.count("close") == 1


def test_disposed_pool_may_be_used_again(make_pool, dbapi):
    pool = make_pool(pool_size=2, max_overflow=1)
    pool.connect().close()
    pool.dispose()
    with pool.connect() as fairy:
        assert fairy.dbapi_connection.number == 2
        assert pool.checkedout() == 1
    assert_whole(pool, dbapi, 3)


def test_connection_that_is_out_survives_dispose(make_pool, dbapi):
    pool = make_pool(pool_size=1)
    fairy = pool.connect()
    pool.dispose()
    assert list(dbapi.open) == [1]
    fairy.cursor().execute("select 1")
    fairy.close()


def test_connection_that_was_out_comes_back_to_a_disposed_pool_without_an_error(
    make_pool,
):
    pool = make_pool(pool_size=2, max_overflow=0, timeout=0)
    taken = [pool.connect(), pool.connect()]
    pool.dispose()
    for one in taken:
        one.close()
    again = [pool.connect(), pool.connect()]
    for one in again:
        one.close()
    pool.dispose()


@pytest.mark.difference
@pytest.mark.parametrize("pool_class", ["poolproof"], indirect=True)
def test_difference_dispose_does_not_forget_the_connections_that_are_out(
    make_pool, dbapi
):
    """QueuePool starts again from zero: its limit is off by what was out."""
    pool = make_pool(pool_size=2, max_overflow=0, timeout=0)
    taken = [pool.connect(), pool.connect()]
    pool.dispose()
    for one in taken:
        one.close()
    assert pool.checkedout() == 0
    assert_whole(pool, dbapi, 2)
    assert len(dbapi.open) <= 2


def test_close_that_fails_does_not_stop_dispose(make_pool, dbapi):
    pool = make_pool(pool_size=3)
    for one in [pool.connect() for _ in range(3)]:
        one.close()
    dbapi.script["close"] = dbapi.OperationalError("already gone")
    pool.dispose()
    dbapi.script.clear()
    assert dbapi.open == {}
    assert_whole(pool, dbapi, 13)


def test_recreate_makes_a_pool_with_the_same_arguments(pool_class, dbapi):
    pool = pool_class(
        dbapi.connect,
        pool_size=3,
        max_overflow=4,
        timeout=1.5,
        use_lifo=True,
        recycle=60,
        pre_ping=False,
        reset_on_return="commit",
        logging_name="orders",
        echo=False,
    )
    other = pool.recreate()
    assert type(other) is pool_class
    assert other is not pool
    assert (other.size(), other.timeout()) == (3, 1.5)
    assert other.logging_name == "orders"
    assert other._recycle == 60
    assert other._reset_on_return is pool._reset_on_return
    taken = [other.connect() for _ in range(7)]
    for one in taken:
        one.close()
    assert len(dbapi.open) == 3
    dbapi.take_calls()
    other.connect().close()
    assert dbapi.take_calls() == ["commit 3"]
    other.dispose()


@pytest.mark.parametrize("pool_class", ["poolproof"], indirect=True)
def test_recreate_takes_the_settings_as_they_were_checked(make_pool):
    pool = make_pool(keep_alive=[9, 8, 7], max_idle=60)
    assert pool.recreate().recreate().settings is pool.settings


@pytest.mark.parametrize("pool_class", ["poolproof"], indirect=True)
def test_recreate_checks_what_a_subclass_has_changed(pool_class, dbapi):
    class Changed(pool_class):
        def given(self):
            return {**super().given(), "max_idle": self.wanted}

    pool = Changed(dbapi.connect)
    pool.wanted = 7.0
    assert pool.recreate().settings.max_idle == 7.0
    pool.wanted = "7"
    with pytest.raises(exc.ArgumentError, match="max_idle"):
        pool.recreate()


@pytest.mark.parametrize(
    ("size", "overflow", "unlimited"), [(0, 10, True), (1, -1, True), (1, 0, False)]
)
def test_recreate_keeps_the_meaning_of_the_limits(
    pool_class, dbapi, size, overflow, unlimited
):
    pool = pool_class(
        dbapi.connect, pool_size=size, max_overflow=overflow, timeout=0
    ).recreate()
    taken = [pool.connect()]
    if unlimited:
        taken += [pool.connect() for _ in range(20)]
    else:
        with pytest.raises(exc.TimeoutError):
            pool.connect()
    for one in taken:
        one.close()
    pool.dispose()


def test_recreate_keeps_timeout_none(make_pool):
    assert make_pool(timeout=None).recreate().timeout() is None


def test_recreate_keeps_the_listeners(make_pool):
    told = []
    pool = make_pool()
    event.listen(pool, "checkout", lambda *_: told.append("checkout"))
    other = pool.recreate()
    other.connect().close()
    assert told == ["checkout"]
    other.dispose()


def test_recreate_keeps_the_dialect(stub_engine):
    engine = stub_engine()
    assert engine.pool.recreate()._dialect is engine.dialect


def test_engine_dispose_replaces_the_pool(stub_engine, dbapi):
    engine = stub_engine(pool_size=2)
    old = engine.pool
    engine.raw_connection().close()
    engine.dispose()
    assert engine.pool is not old
    assert type(engine.pool) is type(old)
    assert dbapi.open == {}
    engine.raw_connection().close()
    assert list(dbapi.open) == [2]


def test_engine_dispose_without_close_leaves_the_connections_open(stub_engine, dbapi):
    engine = stub_engine(pool_size=2)
    old = engine.pool
    engine.raw_connection().close()
    engine.dispose(close=False)
    assert list(dbapi.open) == [1]
    engine.raw_connection().close()
    assert list(dbapi.open) == [1, 2]
    old.dispose()


def test_connection_that_is_out_returns_to_the_old_pool_after_engine_dispose(
    stub_engine, dbapi
):
    engine = stub_engine(pool_size=1, max_overflow=0, pool_timeout=0)
    old = engine.pool
    connection = engine.connect()
    engine.dispose()
    with engine.connect() as other:
        other.exec_driver_sql("select 1")
    connection.exec_driver_sql("select 1")
    connection.close()
    assert engine.pool.checkedin() == 1
    assert engine.pool.checkedout() == 0
    old.dispose()
    assert list(dbapi.open) == [2]


def test_pool_that_nobody_holds_is_collected(pool_class, dbapi):
    pool = pool_class(dbapi.connect)
    pool.connect().close()
    there = weakref.ref(pool)
    del pool
    # The keeper, which the first check-in starts, may just be looking at it.
    eventually(lambda: gc.collect() is not None and there() is None)


def test_record_keeps_its_pool_until_it_is_back(pool_class, dbapi):
    pool = pool_class(dbapi.connect)
    fairy = pool.connect()
    there = weakref.ref(pool)
    del pool
    gc.collect()
    assert there() is not None
    fairy.close()
    assert dbapi.calls[-1] == "rollback 1"
    del fairy
    eventually(lambda: gc.collect() is not None and there() is None)
