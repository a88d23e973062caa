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


# --- what was set while connecting ---------------------------------------------------


def shown(connection, name):
    return connection.scalar(sa.text(f"show {name}"))


def on_connect(engine, *statements):
    @sa.event.listens_for(engine, "connect")
    def set_up(connection, _record):
        before = connection.autocommit
        connection.autocommit = True
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        cursor.close()
        connection.autocommit = before


def test_what_a_connect_listener_has_set_is_set_again(make_engine, pg_url, driver):
    engine = make_engine(pg_url(driver), pool_reset_on_return="discard_all")
    path = '"it\'s", "back\\\\slash", public'
    literal = '"it\'\'s", "back\\\\slash", public'
    on_connect(
        engine,
        f"select set_config('search_path', '{literal}', false)",
        "set statement_timeout to 12345",
        "set standard_conforming_strings to off",
    )
    for _ in range(3):
        with engine.connect() as connection:
            assert shown(connection, "search_path") == path
            assert shown(connection, "statement_timeout") == "12345ms"
            assert shown(connection, "standard_conforming_strings") == "off"
            assert shown(connection, "work_mem") != "123MB"
            connection.execute(sa.text("set search_path to pg_catalog"))
            connection.execute(sa.text("set statement_timeout to 1"))
            connection.execute(sa.text("set work_mem to '123MB'"))
            connection.commit()
    assert engine.pool.stats().discarded == {}


def test_role_of_a_listener_is_taken_again(make_engine, pg_url, driver):
    engine = make_engine(pg_url(driver), pool_reset_on_return="discard_all")
    on_connect(
        engine, "set session authorization pg_monitor", "set role pg_read_all_stats"
    )
    who = sa.text("select session_user::text, current_user::text")
    for _ in range(3):
        with engine.connect() as connection:
            assert connection.execute(who).one() == ("pg_monitor", "pg_read_all_stats")
            connection.execute(sa.text("reset role"))
            connection.execute(sa.text("reset session authorization"))
            connection.commit()
    assert engine.pool.stats().discarded == {}


@pytest.mark.parametrize("level", ["SERIALIZABLE", "REPEATABLE READ"])
def test_isolation_level_of_the_engine_lasts(make_engine, pg_url, driver, level):
    engine = make_engine(
        pg_url(driver), pool_reset_on_return="discard_all", isolation_level=level
    )
    for _ in range(3):
        with engine.connect() as connection:
            assert shown(connection, "transaction_isolation").upper() == level
            connection.commit()
    assert engine.pool.stats().discarded == {}


def test_encoding_of_the_engine_lasts(make_engine, pg_url):
    engine = make_engine(
        pg_url("psycopg2"), pool_reset_on_return="discard_all", client_encoding="latin1"
    )
    for _ in range(3):
        with engine.connect() as connection:
            assert shown(connection, "client_encoding") == "LATIN1"
            assert connection.scalar(sa.text("select 'é'")) == "é"
    assert engine.pool.stats().discarded == {}


def test_transaction_that_a_listener_left_open_goes_on(make_engine, pg_url, driver):
    """What it has set lasts, whether its first caller commits or not."""
    engine = make_engine(pg_url(driver), pool_reset_on_return="discard_all")

    @sa.event.listens_for(engine, "connect")
    def set_up(connection, _record):
        connection.cursor().execute("set statement_timeout to 12345")

    for _ in range(3):
        with engine.connect() as connection:
            assert shown(connection, "statement_timeout") == "12345ms"


def test_listener_that_leaves_a_failed_transaction(make_engine, pg_url, driver):
    engine = make_engine(pg_url(driver), pool_reset_on_return="discard_all")

    @sa.event.listens_for(engine, "connect")
    def fail(connection, _record):
        with pytest.raises(engine.dialect.dbapi.Error):
            connection.cursor().execute("select 1/0")

    with engine.connect() as connection:
        assert connection.scalar(sa.text("select 1")) == 1


def test_begin_by_hand_in_autocommit_is_rolled_back(
    make_engine, pg_url, driver, caplog
):
    """psycopg2 sends no ROLLBACK for a BEGIN that it has not sent."""
    engine = make_engine(
        pg_url(driver), pool_reset_on_return="discard_all", isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.execute(sa.text("begin"))
        connection.execute(sa.text("create table not_to_be (n integer)"))
        pid = connection.scalar(sa.text("select pg_backend_pid()"))
    with engine.connect() as connection:
        assert connection.scalar(sa.text("select pg_backend_pid()")) == pid
        assert connection.scalar(sa.text("select to_regclass('not_to_be')")) is None
    assert engine.pool.stats().discarded == {}
    assert not [one for one in caplog.records if one.levelname == "ERROR"]


def test_check_in_in_the_middle_of_a_stream_is_silent(make_engine, pg_url, caplog):
    engine = make_engine(pg_url("psycopg"), pool_reset_on_return="discard_all")
    raw = engine.raw_connection()
    suspended = raw.cursor().stream("select generate_series(1, 100000)")
    next(suspended)
    raw.close()
    assert engine.pool.stats().discarded == {"in_transaction": 1}
    assert not [one for one in caplog.records if one.levelname == "ERROR"]
    del suspended


@pytest.mark.parametrize("ends", [True, False])
def test_connection_that_is_to_be_closed_is_not_asked(make_engine, pg_url, ends):
    engine = make_engine(pg_url("psycopg"), pool_reset_on_return="discard_all")
    raw = engine.raw_connection()
    raw.cursor().execute("set work_mem to '123MB'")
    raw.commit()
    engine.pool.dispatch.reset(
        raw.dbapi_connection,
        raw._connection_record,
        sa.pool.PoolResetState(
            transaction_was_reset=True, terminate_only=ends, asyncio_safe=True
        ),
    )
    found = raw.cursor().execute("show work_mem").fetchone()
    assert (found == ("123MB",)) is ends
    raw.close()


# --- behind a pooler ------------------------------------------------------------------


@pytest.fixture
def through(make_engine, pooler, driver):
    """Make an engine behind a PgBouncer that has one session on the server."""

    def make(mode, **parameters):
        made = pooler(pool_mode=mode, default_pool_size=1)
        url = sa.make_url(made.url).set(drivername=f"postgresql+{driver}")
        return make_engine(url, pool_reset_on_return="discard_all", **parameters)

    return make


def warned(caplog):
    return sum("a pooler stands between" in one for one in caplog.messages)


@pytest.mark.quick("psycopg2")
def test_behind_a_pooler_of_sessions_it_is_as_without(through, caplog):
    engine = through("session")
    on_connect(engine, "set statement_timeout to 12345")
    assert keep(engine) == [0, False, False, 0, 0]
    for _ in range(3):
        with engine.connect() as connection:
            assert shown(connection, "statement_timeout") == "12345ms"
    assert engine.pool.stats().discarded == {}
    assert warned(caplog) == 1


def test_behind_a_pooler_of_transactions_it_harms_nobody_and_says_so(through, caplog):
    """The session is another at each transaction: a rollback is what can be done."""
    engine = through("transaction", pool_size=2)
    on_connect(engine, "set statement_timeout to 12345")
    with engine.connect() as other:
        other.execute(sa.text("select 1"))
        other.commit()
        for _ in range(3):
            with engine.begin() as connection:
                connection.execute(sa.text("create temporary table t (n integer)"))
                connection.execute(sa.text("drop table t"))
        assert other.scalar(sa.text("select 1")) == 1
    assert engine.pool.stats().discarded == {}
    assert warned(caplog) == 1
