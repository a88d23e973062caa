"""``?plugin=poolproof``: the pool and the guard without a change of code."""

from __future__ import annotations

import logging

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.ext.asyncio import create_async_engine

import poolproof
from plugins.harm import first_error
from poolproof import Fault, plugin

URL = "postgresql+psycopg2://u@127.0.0.1/d?plugin=poolproof"


def is_guarded(engine):
    return any(
        type(getattr(listener, "__self__", None)).__module__ == "poolproof.faults.guard"
        for listener in engine.dialect.dispatch.handle_error
    )


def test_the_url_alone_makes_an_engine_use_the_pool():
    engine = sa.create_engine(URL)
    assert type(engine.pool) is poolproof.Pool
    assert is_guarded(engine)
    assert "plugin" not in engine.url.query


def test_the_argument_does_the_same():
    engine = sa.create_engine("postgresql+psycopg2://u@h/d", plugins=["poolproof"])
    assert type(engine.pool) is poolproof.Pool
    assert is_guarded(engine)


def test_naming_it_twice_is_naming_it_once():
    engine = sa.create_engine(URL, plugins=["poolproof"])
    assert type(engine.pool) is poolproof.Pool
    assert len(list(engine.dialect.dispatch.handle_error)) == 1


def test_the_arguments_of_the_pool_reach_it():
    engine = sa.create_engine(
        URL, pool_size=3, max_overflow=4, pool_timeout=5, pool_recycle=6
    )
    pool = engine.pool
    assert (pool.size(), pool.timeout(), pool._max_overflow) == (3, 5, 4)
    assert pool._recycle == 6


def test_a_configuration_file_reaches_it_too():
    settings = {"sqlalchemy.url": URL, "sqlalchemy.pool_size": "3"}
    engine = sa.engine_from_config(settings)
    assert type(engine.pool) is poolproof.Pool
    assert engine.pool.size() == 3


@pytest.mark.parametrize("given", [sa.NullPool, sa.QueuePool, sa.StaticPool])
def test_a_pool_class_that_is_given_is_respected_and_guarded(given):
    engine = sa.create_engine(URL, poolclass=given)
    assert type(engine.pool) is given
    assert is_guarded(engine)


def test_a_pool_that_is_given_is_respected():
    pool = sa.QueuePool(lambda: None)
    engine = sa.create_engine(URL, pool=pool)
    assert engine.pool is pool
    assert is_guarded(engine)


def test_sqlite_in_memory_keeps_the_pool_it_needs():
    engine = sa.create_engine("sqlite://?plugin=poolproof")
    assert type(engine.pool) is sa.SingletonThreadPool
    assert is_guarded(engine)


def test_sqlite_in_a_file_works_on_our_pool(tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path}/x.db?plugin=poolproof")
    assert type(engine.pool) is poolproof.Pool
    with engine.connect() as connection:
        assert connection.execute(sa.text("select 42")).scalar() == 42
    engine.dispose()


class OtherAsync(PGDialect_asyncpg):
    """An async dialect that the pool is not for."""

    driver = "of_tests"
    supports_statement_cache = True


def test_an_async_url_of_another_driver_gets_the_guard_alone_and_is_told_once(
    monkeypatch, caplog
):
    monkeypatch.setattr(plugin, "_said_async", [])
    monkeypatch.setitem(registry.impls, "postgresql.of_tests", lambda: OtherAsync)
    url = "postgresql+of_tests://u@h/d?plugin=poolproof"
    with caplog.at_level(logging.WARNING, "poolproof"):
        for _ in range(2):
            engine = create_async_engine(url)
            assert type(engine.pool) is sa.AsyncAdaptedQueuePool
            assert is_guarded(engine.sync_engine)
    (record,) = [r for r in caplog.records if r.name == "poolproof"]
    assert "only the guard is installed" in record.getMessage()


def test_it_works_on_a_real_server(pg, driver, events):
    url = pg.url(driver).update_query_dict({"plugin": "poolproof"})
    engine = sa.create_engine(url, pool_size=1)
    with engine.connect() as connection:
        connection.execute(sa.text("set local statement_timeout = 10"))
        first_error(lambda: connection.execute(sa.text("select pg_sleep(5)")))
    assert [event.fault for event in events] == [Fault.CANCELLED]
    assert engine.pool.checkedin() == 1
    engine.dispose()
