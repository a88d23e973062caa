"""The pool's parameters as ``create_engine`` and config files give them."""

from __future__ import annotations

import logging

import pytest
from sqlalchemy import create_engine, engine_from_config, event, exc, pool

import poolproof


def test_engine_gives_every_pool_argument_to_its_pool(stub_engine, pool_class, dbapi):
    engine = stub_engine(
        pool_size=2,
        max_overflow=1,
        pool_timeout=0,
        pool_recycle=100,
        pool_use_lifo=True,
        pool_pre_ping=True,
        pool_reset_on_return="commit",
        pool_logging_name="orders",
    )
    made = engine.pool
    assert type(made) is pool_class
    assert (made.size(), made.timeout()) == (2, 0)
    assert made._recycle == 100
    ours = isinstance(made, poolproof.Pool)
    assert (made.settings.pre_ping if ours else made._pre_ping) is True
    assert made.logging_name == "orders"
    taken = [engine.raw_connection() for _ in range(3)]
    with pytest.raises(exc.TimeoutError):
        engine.raw_connection()
    dbapi.take_calls()
    for one in taken:
        one.close()
    assert dbapi.take_calls() == ["commit 1", "commit 2", "commit 3", "close 3"]
    with engine.raw_connection() as fairy:
        assert fairy.dbapi_connection.number == 2


def test_engine_gives_listeners_to_its_pool(stub_engine):
    told = []
    engine = stub_engine(pool_events=[(lambda *_: told.append("connect"), "connect")])
    engine.raw_connection().close()
    assert told == ["connect"]


def test_config_file_gives_numbers_as_strings(make_engine, pool_class):
    engine = engine_from_config(
        {
            "sqlalchemy.url": "postgresql+psycopg2://127.0.0.1/stub",
            "sqlalchemy.pool_size": "3",
            "sqlalchemy.max_overflow": "4",
            "sqlalchemy.pool_timeout": "5",
            "sqlalchemy.pool_recycle": "600",
            "sqlalchemy.echo_pool": "false",
        },
        poolclass=pool_class,
    )
    assert (engine.pool.size(), engine.pool.timeout()) == (3, 5)
    assert engine.pool._recycle == 600


def test_engine_takes_a_pool_that_is_ready(pool_class, dbapi):
    ready = pool_class(dbapi.connect, pool_size=1)
    engine = create_engine(
        "postgresql+psycopg2://127.0.0.1/stub",
        pool=ready,
        module=dbapi,
        _initialize=False,
    )
    assert engine.pool is ready
    assert ready._dialect is engine.dialect
    with engine.connect() as connection:
        connection.exec_driver_sql("select 1")
    assert dbapi.connects == 1
    engine.dispose()


def test_engine_takes_a_creator(stub_engine, dbapi):
    calls = []

    def creator():
        calls.append("creator")
        return dbapi.connect()

    stub_engine(creator=creator).raw_connection().close()
    assert calls == ["creator"]


def test_do_connect_listener_may_make_the_connection(stub_engine, dbapi):
    engine = stub_engine()
    event.listen(engine, "do_connect", lambda *_: dbapi.connect())
    engine.raw_connection().close()
    assert dbapi.connects == 1


def test_engine_of_other_options_shares_the_pool(stub_engine):
    engine = stub_engine()
    other = engine.execution_options(isolation_level="AUTOCOMMIT")
    assert other.pool is engine.pool


def test_pool_keeps_its_kind_when_it_is_asked_for_by_name(pool_class, dbapi):
    made = pool_class(dbapi.connect)
    assert isinstance(made, pool.Pool)
    assert not made._is_asyncio


def test_asyncio_engine_refuses_a_pool_that_blocks(pool_class):
    from_async = pytest.importorskip("sqlalchemy.ext.asyncio")
    with pytest.raises(exc.ArgumentError, match="cannot be used with"):
        from_async.create_async_engine(
            "postgresql+psycopg://nobody@nowhere.invalid/x", poolclass=pool_class
        )


@pytest.mark.parametrize(
    ("echo", "expected"),
    [
        (None, []),
        (True, ["Invalidate"]),
        ("debug", ["Created new", "checked out", "Invalidate"]),
    ],
)
def test_echo_says_what_happens(pool_class, dbapi, caplog, echo, expected):
    made = pool_class(dbapi.connect, echo=echo, logging_name=f"echo-{echo}")
    try:
        with caplog.at_level(logging.NOTSET):
            made.connect().invalidate()
        text = caplog.text
        for words in expected:
            assert words in text
        assert ("checked out" in text) == (echo == "debug")
        assert ("Invalidate" in text) == (echo is not None)
    finally:
        made.dispose()


def test_log_carries_the_logging_name(pool_class, dbapi, caplog):
    made = pool_class(dbapi.connect, logging_name="orders", echo=True)
    made.connect().close()
    made.dispose()
    names = {record.name for record in caplog.records}
    assert len(names) == 1
    assert names.pop().endswith(f"{pool_class.__name__}.orders")


def test_logger_that_sqlalchemy_documents_for_pools_shows_this_pool(
    pool_class, dbapi, caplog
):
    """``logging.getLogger("sqlalchemy.pool").setLevel(logging.DEBUG)``."""
    with caplog.at_level(logging.DEBUG, "sqlalchemy.pool"):
        made = pool_class(dbapi.connect)
        made.connect().close()
        made.dispose()
    assert "checked out from pool" in caplog.text


@pytest.mark.parametrize("method", ["recreate", "dispose"])
def test_recreating_and_disposing_are_logged(pool_class, dbapi, caplog, method):
    made = pool_class(dbapi.connect, logging_name="told", echo=True)
    getattr(made, method)()
    assert f"Pool {method[:-1] if method[-1] == 'e' else method}" in caplog.text
