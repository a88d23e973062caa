"""A connection that comes back is kept only when it is at rest."""

from __future__ import annotations

import gc

import pytest
from sqlalchemy import event, exc, text

import poolproof
from plugins.wire import answer, backend

BACKEND = text("select pg_backend_pid()")


def test_healthy_connection_is_kept(make_engine, pg_url, driver):
    engine = make_engine(pg_url(driver))
    assert len({backend(engine) for _ in range(5)}) == 1
    assert engine.pool.stats().discarded == {}


def test_open_transaction_is_discarded_where_nothing_resets_it(
    make_engine, pg_url, driver, observer, table
):
    engine = make_engine(pg_url(driver), pool_reset_on_return=None)
    raw = engine.raw_connection()
    raw.cursor().execute(f"insert into {table} values (1)")
    raw.close()
    assert engine.pool.stats().discarded == {"in_transaction": 1}
    observer.wait_for_backends(0)
    assert observer.value(f"select count(*) from {table}") == 0
    assert engine.pool.checkedout() == 0


def test_transaction_of_a_checkin_listener_is_discarded(make_engine, pg_url, driver):
    engine = make_engine(pg_url(driver))
    first = backend(engine)

    @event.listens_for(engine, "checkin")
    def use(connection, _):
        connection.cursor().execute("select 1")

    assert backend(engine) == first  # looked at before it left, used when it came back
    assert engine.pool.stats().discarded == {"in_transaction": 1}
    assert backend(engine) != first


def test_answer_that_nobody_waits_for_costs_the_connection(
    proxied, link, driver, faults_seen
):
    engine = proxied()
    with engine.connect() as connection:
        connection.scalar(BACKEND)
        connection.rollback()
        link().inject(answer("stray"))
        if driver == "pg8000":
            # It reads ahead: what it has read is found by asking, at the next checkout.
            assert connection.connection.dbapi_connection is not None
    values = []
    for n in range(5):
        with engine.connect() as connection:
            values.append(connection.scalar(text(f"select {n}")))
    assert values == list(range(5))
    discarded = engine.pool.stats().discarded
    assert sum(discarded.values()) == 1
    assert set(discarded) <= {"desynchronised", "wrong_answer", "no_answer"}
    if "no_answer" not in discarded:
        assert [one.fault for one in faults_seen] == [poolproof.Fault.CORRUPTION]
        assert faults_seen[0].exception is None
        assert faults_seen[0].backend_pid


def test_nothing_is_sent_to_discard(proxied, link, proxy):
    engine = proxied(pool_reset_on_return=None)
    raw = engine.raw_connection()
    raw.cursor().execute("select 1")
    one = link()
    before = one._up.bytes_total
    raw.close()
    assert one._up.bytes_total == before
    assert engine.pool.stats().discarded == {"in_transaction": 1}


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_interruption_costs_the_connection(
    make_engine, pg_url, driver, observer, interruption
):
    engine = make_engine(pg_url(driver))
    first = backend(engine)

    @event.listens_for(engine, "do_execute")
    def interrupt(*_):
        event.remove(engine, "do_execute", interrupt)
        raise interruption

    with pytest.raises(interruption), engine.connect() as connection:
        connection.execute(text("select 1"))
    assert backend(engine) != first
    assert sum(engine.pool.stats().discarded.values()) == 1
    assert len(observer.wait_for_backends(1)) == 1


def test_callers_mistake_costs_nothing_where_nothing_was_sent(
    make_engine, pg_url, driver
):
    engine = make_engine(pg_url(driver))
    first = backend(engine)

    class Unprintable:
        def __str__(self):
            raise TypeError

    with (
        engine.connect() as connection,
        pytest.raises((TypeError, exc.StatementError, exc.ProgrammingError)),
    ):
        connection.exec_driver_sql("select %s", (Unprintable(),))
    if driver == "pg8000":
        # It converts after it has sent the statement, and is one answer behind.
        assert backend(engine) != first
        assert engine.pool.stats().discarded == {"in_transaction": 1}
    else:
        assert backend(engine) == first
        assert engine.pool.stats().discarded == {}


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"], indirect=True)
def test_suspect_connection_is_asked_once(make_engine, pg_url, driver, statements):
    engine = make_engine(pg_url(driver))
    backend(engine)
    with engine.connect() as connection:
        connection.connection._connection_record.suspect = True
    asked = statements(engine)
    backend(engine)
    backend(engine)
    assert asked() == 1


def test_connection_left_to_the_collector_is_looked_at(
    make_engine, pg_url, driver, table, observer
):
    engine = make_engine(pg_url(driver), pool_reset_on_return=None)
    raw = engine.raw_connection()
    raw.cursor().execute(f"insert into {table} values (1)")
    del raw
    gc.collect()
    assert engine.pool.stats().discarded == {"in_transaction": 1}
    observer.wait_for_backends(0)


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"], indirect=True)
def test_connection_closed_behind_the_pool_is_replaced(make_engine, pg_url, driver):
    engine = make_engine(pg_url(driver))
    raw = engine.raw_connection()
    held = raw.dbapi_connection
    raw.close()
    held.close()
    with engine.connect() as connection:
        assert connection.scalar(text("select 1")) == 1
    assert sum(engine.pool.stats().discarded.values()) == 1
