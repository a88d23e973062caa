"""`reset_on_return="discard_all"`: no state of a session outlives its check-in."""

from __future__ import annotations

import time

import pytest
import sqlalchemy as sa

import poolproof
from plugins.threads import eventually

STATE = (
    "select pg_advisory_lock(4711)",
    "create temporary table kept (n integer)",
    "set application_name to 'kept'",
    "listen kept",
    "prepare kept as select 1",
)
LEFT = sa.text(
    "select (select count(*) from pg_locks where locktype = 'advisory' "
    "and pid = pg_backend_pid()), to_regclass('pg_temp.kept') is not null, "
    "current_setting('application_name') = 'kept', "
    "(select count(*) from pg_listening_channels()), "
    "(select count(*) from pg_prepared_statements where name = 'kept'), "
    "pg_backend_pid()"
)


def keep(engine, **options):
    """Leave every kind of state in a session; return what the next caller finds."""
    with engine.connect().execution_options(**options) as connection:
        for statement in STATE:
            connection.execute(sa.text(statement))
        pid = connection.scalar(sa.text("select pg_backend_pid()"))
        if not options:
            connection.commit()
    with engine.connect() as connection:
        *found, again = connection.execute(LEFT).one()
    assert again == pid
    return found


@pytest.mark.parametrize("options", [{}, {"isolation_level": "AUTOCOMMIT"}])
def test_no_state_outlives_a_check_in(make_engine, pg_url, driver, options):
    engine = make_engine(pg_url(driver), pool_reset_on_return="discard_all")
    assert keep(engine, **options) == [0, False, False, 0, 0]
    assert engine.pool.stats().discarded == {}
    again = engine.pool.recreate()
    assert again._discards


def test_without_it_all_of_it_does(make_engine, pg_url, driver):
    engine = make_engine(pg_url(driver))
    assert keep(engine) == [1, True, True, 1, 1]


def test_transaction_left_open_is_rolled_back_first(make_engine, pg_url, driver):
    engine = make_engine(pg_url(driver), pool_reset_on_return="discard_all")
    raw = engine.raw_connection()
    raw.cursor().execute("create temporary table kept (n integer)")
    raw.close()
    with engine.connect() as connection:
        assert connection.execute(LEFT).one()[1] is False
    assert engine.pool.stats().discarded == {}


def test_what_the_driver_has_prepared_is_prepared_anew(make_engine, pg_url):
    engine = make_engine(
        pg_url("psycopg"),
        pool_reset_on_return="discard_all",
        connect_args={"prepare_threshold": 0},
    )
    for number in range(4):
        with engine.begin() as connection:  # psycopg forgets all at a rollback
            asked = sa.text("select :n + 1").bindparams(n=number)
            assert connection.scalar(asked) == number + 1
            assert connection.scalar(asked) == number + 1
    assert engine.pool.stats().discarded == {}


def test_next_caller_has_transactions_again(make_engine, pg_url, driver):
    engine = make_engine(pg_url(driver), pool_reset_on_return="discard_all")
    for _ in range(2):
        raw = engine.raw_connection()
        assert raw.dbapi_connection.autocommit is False
        raw.close()


def test_check_in_of_a_silent_server_ends_within_its_bound(proxied, link):
    engine = proxied(pool_reset_on_return="discard_all", reset_timeout=0.3)
    with engine.connect() as connection:
        connection.execute(sa.text("select 1"))
        connection.commit()
        link().stall()
        began = time.monotonic()
    assert time.monotonic() - began < 10
    assert engine.pool.stats().discarded == {"reset_timeout": 1}
    assert isinstance(engine.pool, poolproof.Pool)


def test_closing_a_session_that_listens_warns_once(make_engine, pg_url, driver, caplog):
    engine = make_engine(pg_url(driver), max_idle=0.2, isolation_level="AUTOCOMMIT")
    for _ in range(2):
        with engine.connect() as connection:
            connection.execute(sa.text("listen kept"))
            connection.execute(sa.text("notify kept"))
        eventually(lambda: not engine.pool.checkedin())
    said = [one for one in caplog.messages if "listens, and is closed" in one]
    assert len(said) == 1
    assert "(idle)" in said[0]
