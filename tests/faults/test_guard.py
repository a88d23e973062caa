"""The hook itself: put on once, never in the way, and heard."""

from __future__ import annotations

import logging
import os
import pickle

import psycopg2
import pytest
import sqlalchemy as sa
from sqlalchemy import event

import poolproof
from plugins.harm import driver_connections, first_error
from poolproof import Fault, FaultEvent

SELECT = sa.text("select 42")
CANCELLED = sa.text("select pg_sleep(5)")


def hooks(engine):
    return [
        listener
        for listener in engine.dialect.dispatch.handle_error
        if type(getattr(listener, "__self__", None)).__module__
        == "poolproof.faults.guard"
    ]


def cancel(engine):
    """Cause one fault that costs nothing."""
    with engine.connect() as connection:
        connection.execute(sa.text("set local statement_timeout = 10"))
        return first_error(lambda: connection.execute(CANCELLED))


# --- putting it on --------------------------------------------------------------------


@pytest.mark.parametrize("pool", [sa.QueuePool, poolproof.Pool], ids=["queue", "ours"])
def test_guard_puts_one_hook_on_however_often_it_is_called(make_engine, events, pool):
    engine = make_engine("psycopg2", poolclass=pool)
    for _ in range(3):
        poolproof.guard(engine)
        poolproof.guard(engine.execution_options(isolation_level="AUTOCOMMIT"))
    assert len(hooks(engine)) == 1
    cancel(engine)
    assert len(events) == 1


def test_our_pool_guards_its_engine_by_itself(make_engine, events):
    engine = make_engine("psycopg2", poolclass=poolproof.Pool)
    assert len(hooks(engine)) == 1
    cancel(engine)
    assert len(events) == 1


def test_our_pool_made_by_hand_guards_the_engine_it_is_given_to(pg, events):
    def connect():
        return psycopg2.connect(host=pg.host, port=pg.port, user="postgres")

    pool = poolproof.Pool(connect)
    engine = sa.create_engine("postgresql+psycopg2://", pool=pool)
    cancel(engine)
    assert len(hooks(engine)) == 1
    assert len(events) == 1
    engine.dispose()


@pytest.mark.parametrize("pool", [sa.QueuePool, poolproof.Pool], ids=["queue", "ours"])
def test_disposing_does_not_add_listeners(make_engine, pool):
    engine = make_engine("psycopg2", poolclass=pool)
    poolproof.guard(engine)
    before = len(list(engine.pool.dispatch.connect))
    for _ in range(3):
        engine.dispose()
        poolproof.guard(engine)
    assert len(list(engine.pool.dispatch.connect)) == before
    assert len(hooks(engine)) == 1


def test_an_engine_without_the_guard_reports_nothing(make_engine, events):
    cancel(make_engine("psycopg2"))
    assert events == []


@pytest.mark.parametrize("thing", [None, "postgresql://", sa.MetaData()])
def test_what_is_no_engine_is_refused(thing):
    with pytest.raises(TypeError, match="needs an Engine or an AsyncEngine, not"):
        poolproof.guard(thing)


def test_the_guard_works_on_another_database(tmp_path, events):
    engine = sa.create_engine(f"sqlite:///{tmp_path}/x.db")
    poolproof.guard(engine)
    with engine.connect() as connection:
        first_error(lambda: connection.execute(sa.text("selec")))
        assert connection.execute(SELECT).scalar() == 42
    assert events == []
    engine.dispose()


# --- never in the way -----------------------------------------------------------------


class Thorny(psycopg2.OperationalError):
    """An error that cannot even be looked at."""

    @property
    def pgcode(self):
        raise RuntimeError("do not ask")


def test_a_fault_in_the_hook_leaves_the_error_as_it_was(make_engine, caplog, events):
    engine = make_engine("psycopg2")
    poolproof.guard(engine)
    driver_connections(engine, 1)  # SQLAlchemy asks for the version at the first

    @event.listens_for(engine, "do_execute")
    def fail(*_):
        raise Thorny("the real reason")

    with engine.connect() as connection, caplog.at_level("ERROR", "poolproof.guard"):
        error = first_error(lambda: connection.execute(SELECT))
    assert isinstance(error, sa.exc.OperationalError)
    assert type(error.orig) is Thorny
    assert not error.connection_invalidated
    (record,) = [r for r in caplog.records if r.name == "poolproof.guard"]
    assert "the guard failed" in record.getMessage()
    assert events == []


def test_a_handler_of_the_application_that_raises_hides_nothing(make_engine, events):
    engine = make_engine("psycopg2")
    poolproof.guard(engine)

    @event.listens_for(engine, "handle_error")
    def replace(_):
        raise LookupError("mine")

    assert isinstance(cancel(engine), LookupError)
    assert [each.fault for each in events] == [Fault.CANCELLED]


def test_what_a_later_handler_returns_is_raised(make_engine, events):
    engine = make_engine("psycopg2")
    poolproof.guard(engine)

    @event.listens_for(engine, "handle_error", retval=True)
    def replace(_):
        return LookupError("mine")

    assert isinstance(cancel(engine), LookupError)
    assert len(events) == 1


def test_a_disconnect_of_sqlalchemys_stays_one(make_engine, events):
    """A handler before ours decides; the table knows nothing of this error."""
    engine = make_engine("psycopg2", pool_size=2)

    @event.listens_for(engine, "handle_error")
    def decide(context):
        context.is_disconnect = True

    poolproof.guard(engine)

    before = driver_connections(engine, 2)
    with engine.connect() as connection:
        error = first_error(lambda: connection.execute(sa.text("selec")))
    assert error.connection_invalidated
    (one,) = events
    assert (one.fault, one.verdict.cost) == (Fault.CONNECTION_LOST, "generation")
    assert not set(before) & set(driver_connections(engine, 2))


@pytest.mark.parametrize("pool", [sa.QueuePool, poolproof.Pool], ids=["queue", "ours"])
def test_a_later_handler_may_keep_the_connection(make_engine, monkeypatch, pool):
    """The connection must still be of use then, for the rollback and for the next."""
    engine = make_engine("psycopg2", poolclass=pool)
    backend = sa.text("select pg_backend_pid()")
    with engine.connect() as connection:
        pid = connection.scalar(backend)
    monkeypatch.setattr(engine.dialect, "is_disconnect", lambda *_: True)

    @event.listens_for(engine, "handle_error")
    def keep(context):
        assert context.is_disconnect
        context.is_disconnect = False

    with engine.connect() as connection:
        first_error(lambda: connection.execute(sa.text("select nothing")))
        assert not connection.invalidated
    with engine.connect() as connection:
        assert connection.scalar(backend) == pid


def test_a_fault_inside_a_statement_of_sqlalchemys_own_is_one_event(
    make_engine, table, events
):
    """A column's default is selected first; its error passes the hook twice."""
    slow = sa.Table(
        table,
        sa.MetaData(),
        sa.Column("n", sa.Integer, primary_key=True, default=sa.func.pg_sleep(5)),
        implicit_returning=False,
    )
    engine = make_engine("psycopg2")
    poolproof.guard(engine)
    with engine.connect() as connection:
        connection.execute(sa.text("set local statement_timeout = 10"))
        first_error(lambda: connection.execute(slow.insert()))
    assert [one.fault for one in events] == [Fault.CANCELLED]


def test_an_error_of_another_engine_is_not_this_ones(make_engine, proxy, events):
    engine, other = (make_engine("psycopg2", way, pool_size=1) for way in (None, proxy))
    poolproof.guard(engine)
    poolproof.guard(other)
    before = driver_connections(engine, 1)

    @event.listens_for(engine, "do_execute")
    def use_the_other(*_):
        with other.connect() as connection:
            connection.execute(SELECT)
            proxy.cut()
            connection.execute(SELECT)

    with engine.connect() as connection:
        error = first_error(lambda: connection.execute(SELECT))
    assert "server closed the connection unexpectedly" in str(error)
    assert [one.fault for one in events] == [Fault.CONNECTION_LOST]
    assert driver_connections(engine, 1) == before


def test_a_closed_connection_does_not_go_back_whatever_was_raised(make_engine, events):
    engine = make_engine("psycopg2", pool_size=1)
    poolproof.guard(engine)
    (before,) = driver_connections(engine, 1)

    @event.listens_for(engine, "do_execute", once=True)
    def close_and_fail(*_):
        before.close()
        raise LookupError("mine")

    with engine.connect() as connection:
        assert isinstance(first_error(lambda: connection.execute(SELECT)), LookupError)
    assert [one.fault for one in events] == [Fault.CONNECTION_LOST]
    with engine.connect() as connection:
        assert connection.execute(SELECT).scalar() == 42


# --- log and listeners ----------------------------------------------------------------


def test_each_event_is_one_log_line_without_values_of_the_application(
    make_engine, driver, observer, caplog
):
    engine = make_engine(driver, pool_size=1)
    poolproof.guard(engine)
    secret = "hunter2"  # noqa: S105 - that it does not show is the point
    with (
        engine.connect() as connection,
        caplog.at_level(logging.INFO, "poolproof.guard"),
    ):
        pid = connection.execute(sa.text("select pg_backend_pid()")).scalar()
        connection.execute(sa.text("select cast(:s as text)"), {"s": secret})
        observer.terminate(pid)
        first_error(
            lambda: connection.execute(sa.text("select :s || :s"), {"s": secret})
        )
    (record,) = [r for r in caplog.records if r.name == "poolproof.guard"]
    line = record.getMessage()
    assert record.levelname == "WARNING"
    assert secret not in line
    assert f"backend pid {pid}, process id {os.getpid()}, pool QueuePool" in line
    assert "cost generation, retry whole_unit, outcome not_done" in line


def test_a_fault_that_costs_nothing_is_logged_as_information(make_engine, caplog):
    engine = make_engine("psycopg2")
    poolproof.guard(engine)
    with caplog.at_level(logging.INFO, "poolproof.guard"):
        cancel(engine)
    (record,) = [r for r in caplog.records if r.name == "poolproof.guard"]
    assert record.levelname == "INFO"
    assert record.getMessage().startswith("poolproof: statement_timeout, or")


def test_an_event_says_what_happened(make_engine, driver, events):
    engine = make_engine(driver, pool_size=1)
    poolproof.guard(engine)
    error = cancel(engine)
    (one,) = events
    assert isinstance(one, FaultEvent)
    assert one.exception is error.orig
    assert (one.driver, one.process_id) == (driver, os.getpid())
    assert one.backend_pid is not None
    assert one.when.utcoffset() is not None


def test_a_listener_hears_until_it_is_removed(make_engine):
    engine = make_engine("psycopg2")
    poolproof.guard(engine)
    heard = []
    remove = poolproof.on_fault(heard.append)
    cancel(engine)
    remove()
    remove()
    cancel(engine)
    assert len(heard) == 1


def test_a_listener_that_fails_is_logged_and_harms_nobody(make_engine, caplog, events):
    def fail(_):
        raise RuntimeError("mine")

    engine = make_engine("psycopg2")
    poolproof.guard(engine)
    removers = [
        poolproof.on_fault(fail),
        poolproof.on_fault(lambda _: events.append(1)),
    ]
    try:
        error = cancel(engine)
    finally:
        for remove in removers:
            remove()
    assert error.orig.pgcode == "57014"
    assert len(events) == 2
    assert "a listener of poolproof.on_fault failed" in caplog.text
    assert "mine" in caplog.text
    # The driver's text may hold user data.
    assert "canceling statement" not in caplog.text


def test_a_listener_that_causes_faults_is_not_called_for_them(make_engine):
    engine = make_engine("psycopg2")
    poolproof.guard(engine)
    heard = []

    def cause_another(seen):
        heard.append(seen)
        cancel(engine)

    remove = poolproof.on_fault(cause_another)
    try:
        cancel(engine)
    finally:
        remove()
    assert len(heard) == 1


def test_a_listener_must_be_callable():
    with pytest.raises(TypeError, match="on_fault needs a function, not 'log'"):
        poolproof.on_fault("log")


def test_only_an_exception_can_be_classified():
    with pytest.raises(TypeError, match="classify needs an exception, not '57P01'"):
        poolproof.classify("57P01")


def test_a_connect_error_has_no_connection_and_is_reported(make_engine, driver, events):
    engine = make_engine(driver, user="nobody_of_this_name")
    poolproof.guard(engine)
    first_error(engine.connect)
    assert events == []  # a wrong name is no fault of the connection's


def test_the_mark_on_a_dialect_does_not_hinder_pickling_of_errors(make_engine):
    engine = make_engine("psycopg2")
    poolproof.guard(engine)
    error = cancel(engine)
    assert pickle.loads(pickle.dumps(error)).orig.args == error.orig.args
