"""Behind a PgBouncer that says at connecting what it is, and in which mode (1.26)."""

from __future__ import annotations

import logging

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

import poolproof
from plugins.threads import eventually
from poolproof.drivers import known

pytestmark = pytest.mark.quick("psycopg2")


@pytest.fixture
def engine_of(driver):
    """Make an engine through a pooler; dispose of it at the end."""
    made = []

    def make(pooler, **options):
        url = pooler.url.set(drivername=f"postgresql+{driver}")
        options.setdefault("isolation_level", "AUTOCOMMIT")
        engine = create_engine(url, poolclass=poolproof.Pool, **options)
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.dispose()


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_its_mode_is_known_and_its_number_for_the_backend_is_not_believed(
    telling_pooler, engine_of, mode
):
    engine = engine_of(telling_pooler(pool_mode=mode))
    with engine.connect() as connection:
        raw = connection.connection.driver_connection
        driver = known.of(raw, None)
        assert driver.pooler_mode(raw) == mode
        assert driver.told_pid(raw) is not None
        assert driver.backend_pid(raw) is None


def test_an_older_one_and_a_server_say_nothing(pooler, pg_url, driver, engine_of):
    with engine_of(pooler()).connect() as connection:
        raw = connection.connection.driver_connection
        assert known.of(raw, None).pooler_mode(raw) is None
    engine = create_engine(pg_url(driver), poolclass=NullPool)
    with engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert known.of(raw, None).pooler_mode(raw) is None
        pid = connection.scalar(text("select pg_backend_pid()"))
        assert known.of(raw, None).backend_pid(raw) == pid


def test_no_backend_is_ended_by_a_number_that_was_made_up(
    telling_pooler, engine_of, observer
):
    pooler = telling_pooler(pool_mode="transaction")
    engine = engine_of(pooler, end_stranded_backends=True, max_overflow=0, pool_size=1)
    with (
        pytest.raises(Exception),  # noqa: B017, PT011 - each driver has its own
        engine.connect() as connection,
        poolproof.deadline(0.3),
    ):
        connection.execute(text("select pg_sleep(30)"))
    assert engine.pool.stats().stranded == {"unrecognised": 1}
    # The statement goes on: PgBouncer itself ends what its client has left.
    ours = "select count(*) from pg_stat_activity where query = 'select pg_sleep(30)'"
    eventually(lambda: observer.value(ours) == 0)


def test_discard_all_does_not_touch_a_session_that_is_lent_to_others(
    telling_pooler, engine_of, caplog
):
    pooler = telling_pooler(pool_mode="transaction", default_pool_size=1)
    engine = engine_of(pooler, pool_reset_on_return="discard_all")
    plain = engine_of(pooler, pool_reset_on_return=None)
    with caplog.at_level(logging.WARNING), plain.connect() as other:
        other.execute(text("create temp table kept (n int)"))
        for _ in range(2):
            with engine.connect() as connection:
                connection.execute(text("select 1"))
        assert other.scalar(text("select count(*) from kept")) == 0
        other.execute(text("drop table kept"))
    said = [line for line in caplog.messages if "discard_all is left out" in line]
    assert len(said) == 1
    assert "in transaction mode" in said[0]


def test_discard_all_goes_on_in_a_session_of_its_own(telling_pooler, engine_of, caplog):
    pooler = telling_pooler(pool_mode="session")
    engine = engine_of(pooler, pool_reset_on_return="discard_all")
    with caplog.at_level(logging.WARNING):
        with engine.connect() as connection:
            connection.execute(text("create temp table gone (n int)"))
        with engine.connect() as connection:
            there = connection.scalar(text("select to_regclass('pg_temp.gone')"))
    assert there is None
    assert caplog.messages == []
