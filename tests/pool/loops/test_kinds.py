"""Which pool an engine gets, and the error of one that is of the other kind."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy import create_engine, exc
from sqlalchemy.ext.asyncio import create_async_engine

import poolproof


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "poolproof"])
def test_a_sync_engine_refuses_the_async_pool_and_names_the_other(driver):
    with pytest.raises(exc.ArgumentError, match=r"give poolclass=poolproof\.Pool$"):
        create_engine(f"postgresql+{driver}://", poolclass=poolproof.AsyncPool)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg", "poolproof"])
def test_an_async_engine_refuses_the_other_and_names_this(driver):
    with pytest.raises(exc.ArgumentError, match=r"poolclass=poolproof\.AsyncPool$"):
        create_async_engine(f"postgresql+{driver}://", poolclass=poolproof.Pool)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg", "poolproof"])
def test_the_plugin_chooses_it_and_the_url_has_its_knobs(driver):
    engine = create_async_engine(
        f"postgresql+{driver}://h/d?plugin=poolproof&poolproof_hold_timeout=5",
        pool_size=3,
    )
    assert type(engine.pool) is poolproof.AsyncPool
    assert engine.pool.settings.hold_timeout == 5
    assert engine.pool.size() == 3
    assert engine.pool.origins == {"hold_timeout": "URL"}
    made_anew = engine.pool.recreate()
    assert type(made_anew) is poolproof.AsyncPool
    assert made_anew.given() == engine.pool.given()


def test_an_async_engine_on_our_own_driver_has_it_unasked():
    engine = create_async_engine("postgresql+poolproof://h/d", pool_size=3)
    assert type(engine.pool) is poolproof.AsyncPool
    assert engine.dialect.is_async
    assert engine.pool.size() == 3


def test_a_pool_that_was_named_is_respected():
    engine = create_async_engine(
        "postgresql+asyncpg://h/d?plugin=poolproof", poolclass=sa.pool.NullPool
    )
    assert type(engine.pool) is sa.pool.NullPool
