"""Faults that a real server reports, and errors that are none."""

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa

import poolproof
from plugins.harm import driver_connections, first_error, pid_of, wait_for_the_end
from poolproof import Fault

SELECT = sa.text("select 42")


def survivors(engine, before):
    """Say which of the connections are still the pool's."""
    after = {id(one) for one in driver_connections(engine, len(before))}
    return [id(one) in after for one in before]


@pytest.fixture
def guarded(make_engine, driver):
    engine = make_engine(driver, pool_size=3)
    poolproof.guard(engine)
    return engine


@pytest.fixture(params=[sa.QueuePool, poolproof.Pool], ids=["queue", "poolproof"])
def either(request, make_engine, driver):
    """Make a guarded engine with one pool, then with the other."""
    engine = make_engine(driver, pool_size=3, poolclass=request.param)
    if request.param is sa.QueuePool:
        poolproof.guard(engine)
    return engine


# --- what costs nothing ---------------------------------------------------------------


def test_a_unique_violation_costs_nothing_and_is_no_event(
    either, observer, table, events
):
    observer.rows(f"create unique index on {table} (n)")
    before = driver_connections(either, 3)
    with either.connect() as connection:
        insert = sa.text(f"insert into {table} values (1)")
        connection.execute(insert)
        error = first_error(lambda: connection.execute(insert))
    assert isinstance(error, sa.exc.DBAPIError)
    assert not error.connection_invalidated
    assert survivors(either, before) == [True] * 3
    assert events == []
    verdict = poolproof.classify(error)
    assert (verdict.fault, verdict.outcome) == (Fault.NONE, "not_done")


WORDS = [
    "lost synchronization with server: got message type",
    "error with status PGRES_TUPLES_OK and no message from the libpq",
    "server sent data without prior row description",
    "received 2 results from command 'COMMIT'",
    "the connection is lost",
    "network error",
    "no more connections allowed",
]


@pytest.mark.parametrize("text", WORDS)
def test_words_of_the_application_are_not_taken_for_a_fault(
    make_engine, driver, events, text
):
    engine = make_engine(driver, pool_size=3)
    poolproof.guard(engine)
    before = driver_connections(engine, 3)
    quoted = text.replace("'", "''")
    raising = sa.text(f"do $$ begin raise exception '{quoted}'; end $$")
    with engine.connect() as connection:
        error = first_error(lambda: connection.execute(raising))
    assert text in str(error)
    assert events == []
    assert survivors(engine, before) == [True] * 3


def test_a_cancelled_statement_costs_nothing(either, events):
    before = driver_connections(either, 3)
    with either.connect() as connection:
        connection.execute(sa.text("set local statement_timeout = 20"))
        first_error(lambda: connection.execute(sa.text("select pg_sleep(5)")))
    (event,) = events
    assert (event.fault, event.sqlstate) == (Fault.CANCELLED, "57014")
    assert (event.verdict.cost, event.verdict.retry) == ("nothing", "never")
    assert survivors(either, before) == [True] * 3


def test_a_lock_that_is_taken_costs_nothing_and_may_be_tried_again(
    either, table, events
):
    before = driver_connections(either, 3)
    with either.connect() as first, either.connect() as second:
        first.execute(sa.text(f"lock table {table}"))
        first_error(lambda: second.execute(sa.text(f"lock table {table} nowait")))
    (event,) = events
    assert (event.fault, event.sqlstate) == (Fault.LOCK_TIMEOUT, "55P03")
    assert (event.verdict.cost, event.verdict.retry) == ("nothing", "whole_unit")
    assert survivors(either, before) == [True] * 3


def test_a_serialization_failure_may_be_repeated_as_a_whole(
    guarded, observer, table, events
):
    observer.rows(f"insert into {table} values (1)")
    engine = guarded.execution_options(isolation_level="REPEATABLE READ")
    update = sa.text(f"update {table} set n = n + 1")
    with engine.connect() as first, engine.connect() as second:
        for one in (first, second):
            one.execute(sa.text(f"select * from {table}"))
        first.execute(update)
        first.commit()
        first_error(lambda: second.execute(update))
    (event,) = events
    assert (event.fault, event.sqlstate) == (Fault.SERIALIZATION, "40001")
    assert event.verdict.cost == "nothing"
    assert (event.verdict.retry, event.verdict.outcome) == ("whole_unit", "not_done")


def test_a_deadlock_may_be_repeated_as_a_whole(guarded, observer, table, events):
    observer.rows(f"insert into {table} values (1), (2)")
    update = f"update {table} set n = n where n = "
    both_locked = threading.Barrier(2)

    def lock(mine, other):
        with guarded.connect() as connection:
            connection.execute(sa.text("set local deadlock_timeout = 50"))
            connection.execute(sa.text(f"{update}{mine}"))
            both_locked.wait(10)
            try:
                connection.execute(sa.text(f"{update}{other}"))
            except sa.exc.DBAPIError:
                connection.rollback()

    threads = [threading.Thread(target=lock, args=pair) for pair in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    (event,) = events
    assert (event.fault, event.sqlstate) == (Fault.DEADLOCK, "40P01")
    assert event.verdict.cost == "nothing"
    assert (event.verdict.retry, event.verdict.outcome) == ("whole_unit", "not_done")


# --- the session ended ----------------------------------------------------------------


def terminate(engine, observer):
    """End the session of a connection that is out, and use it."""
    with engine.connect() as connection:
        pid = pid_of(connection)
        observer.terminate(pid)
        wait_for_the_end(connection)
        error = first_error(lambda: connection.execute(SELECT))
    return pid, error


def test_a_terminated_backend_costs_the_generation_on_a_pool_that_is_blind(
    guarded, observer, events
):
    before = driver_connections(guarded, 3)
    pid, error = terminate(guarded, observer)
    assert error.connection_invalidated
    (event,) = events
    assert event.fault in {Fault.TERMINATED, Fault.CONNECTION_LOST}
    assert (event.verdict.cost, event.backend_pid) == ("generation", pid)
    assert (event.verdict.retry, event.verdict.outcome) == ("whole_unit", "not_done")
    assert survivors(guarded, before) == [False] * 3


def test_a_terminated_backend_costs_one_connection_on_our_pool(
    make_engine, driver, observer, events
):
    engine = make_engine(driver, pool_size=3, poolclass=poolproof.Pool)
    before = driver_connections(engine, 3)
    pid, error = terminate(engine, observer)
    assert error.connection_invalidated
    (event,) = events
    assert (event.verdict.cost, event.backend_pid) == ("connection", pid)
    assert sorted(survivors(engine, before)) == [False, True, True]


@pytest.mark.parametrize(
    ("setting", "sqlstate"),
    [
        ("idle_in_transaction_session_timeout", "25P03"),
        ("idle_session_timeout", "57P05"),
    ],
)
def test_an_idle_timeout_of_the_server_is_a_termination(
    make_engine, events, setting, sqlstate
):
    # psycopg alone gives the SQLSTATE of a message that comes before the end.
    engine = make_engine("psycopg", pool_size=1)
    poolproof.guard(engine)
    with engine.connect() as connection:
        # Long enough for the answer to be read before: libpq takes a message that comes
        # with it for a notice, and forgets it.
        connection.execute(sa.text(f"set {setting} = 1000"))
        if setting == "idle_session_timeout":
            connection.commit()
        wait_for_the_end(connection)
        first_error(lambda: connection.execute(SELECT))
    (event,) = events
    assert (event.fault, event.sqlstate) == (Fault.TERMINATED, sqlstate)


@pytest.mark.parametrize("commit", [False, True], ids=["execute", "commit"])
def test_a_cut_connection_is_lost_and_a_commit_unknown(
    make_engine, driver, proxy, events, table, commit
):
    engine = make_engine(driver, proxy, pool_size=1)
    poolproof.guard(engine)
    with engine.connect() as connection:
        connection.execute(sa.text(f"insert into {table} values (1)"))
        proxy.cut()
        error = first_error(
            connection.commit if commit else lambda: connection.execute(SELECT)
        )
    assert isinstance(error, sa.exc.DBAPIError)
    (event,) = events
    assert event.fault is Fault.CONNECTION_LOST
    verdict = event.verdict
    assert (verdict.retry, verdict.outcome) == (
        ("never", "unknown") if commit else ("whole_unit", "not_done")
    )


def test_a_reset_connection_is_lost(make_engine, driver, proxy, events):
    engine = make_engine(driver, proxy, pool_size=1)
    poolproof.guard(engine)
    with engine.connect() as connection:
        connection.execute(SELECT)
        proxy.reset()
        first_error(lambda: connection.execute(SELECT))
        connection.invalidate()
    assert [event.fault for event in events] == [Fault.CONNECTION_LOST]


# --- connecting was refused -----------------------------------------------------------


def test_a_full_role_is_told_from_other_connect_errors(
    make_engine, driver, observer, events
):
    observer.rows("drop role if exists narrow")
    observer.rows("create role narrow login connection limit 1")
    engine = make_engine(driver, pool_size=3, user="narrow")
    poolproof.guard(engine)
    with engine.connect() as connection:
        connection.execute(SELECT)
        error = first_error(engine.connect)
        assert isinstance(error, sa.exc.DBAPIError)
        assert connection.execute(SELECT).scalar() == 42
    (event,) = events
    assert event.fault is Fault.TOO_MANY_CONNECTIONS
    assert (event.verdict.cost, event.verdict.retry) == ("nothing", "reconnect")
    assert event.verdict.outcome == "not_done"
    assert event.backend_pid is None


def test_an_address_without_a_server_is_unreachable(make_engine, driver, proxy, events):
    engine = make_engine(driver, proxy)
    poolproof.guard(engine)
    proxy.close()
    first_error(engine.connect)
    (event,) = events
    assert event.fault is Fault.UNREACHABLE
    assert (event.verdict.cost, event.verdict.retry) == ("nothing", "reconnect")


# --- a failover -----------------------------------------------------------------------


@pytest.fixture
def writing_role(observer):
    """Name a role whose sessions may write, so far."""
    observer.rows("drop role if exists reader")
    observer.rows("create role reader login superuser")
    return "reader"


def make_read_only(observer, role):
    """Have the server make a role's next sessions read-only, as on a standby."""
    observer.rows(f"alter role {role} set default_transaction_read_only = on")


@pytest.fixture
def read_only_role(observer, writing_role):
    """Name a role whose sessions the server makes read-only."""
    make_read_only(observer, writing_role)
    return writing_role


def write(connection, table):
    return first_error(
        lambda: connection.execute(sa.text(f"insert into {table} values (1)"))
    )


@pytest.mark.parametrize("pool", [sa.QueuePool, poolproof.Pool], ids=["queue", "ours"])
def test_a_server_that_became_read_only_costs_the_generation(
    make_engine, driver, writing_role, observer, table, events, pool, monkeypatch
):
    engine = make_engine(driver, pool_size=3, user=writing_role, poolclass=pool)
    poolproof.guard(engine)
    driver_connections(engine, 3)
    make_read_only(observer, writing_role)
    engine.dispose()  # as when the old server ended them
    monkeypatch.setattr("poolproof.faults.opened._AGAIN_S", 0.0)
    before = driver_connections(engine, 3)
    with engine.connect() as connection:
        error = write(connection, table)
        assert error.connection_invalidated
    (event,) = events
    assert (event.fault, event.sqlstate) == (Fault.READ_ONLY, "25006")
    assert event.verdict.cost == "generation"
    assert survivors(engine, before) == [False] * 3


def test_without_the_guard_a_read_only_server_keeps_its_connections(
    make_engine, driver, read_only_role, table
):
    engine = make_engine(driver, pool_size=3, user=read_only_role)
    before = driver_connections(engine, 3)
    with engine.connect() as connection:
        write(connection, table)
    assert survivors(engine, before) == [True] * 3


@pytest.mark.parametrize("how", ["option", "statement"])
def test_a_transaction_that_was_meant_to_be_read_only_costs_nothing(
    guarded, table, events, how
):
    before = driver_connections(guarded, 3)
    with guarded.connect() as connection:
        if how == "option":
            connection = connection.execution_options(postgresql_readonly=True)  # noqa: PLW2901
        else:
            connection.execute(sa.text("set transaction read only"))
        error = write(connection, table)
        assert not error.connection_invalidated
    assert events == []
    assert survivors(guarded, before) == [True] * 3
