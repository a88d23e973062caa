"""What applications do in a unit of work, or around it, that could do it twice.

Or that could call it done when it is not.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import pytest
from sqlalchemy import event, exc, text
from sqlalchemy.orm import Session, sessionmaker

import poolproof
from poolproof import Fault
from poolproof.drivers import backend
from poolproof.faults.table import register
from poolproof.retry import commit_status
from poolproof.retry.state import Course

QUICK = poolproof.Backoff(first=0.001, most=0.01)
FAIL = text("do $$ begin raise sqlstate '40001'; end $$")


class Failing:
    """Inserts a row and meets a serialization failure, but for the second time."""

    def __init__(self, table, between=lambda _: None) -> None:
        self.insert = text(f"insert into {table} values (1)")
        self.between = between
        self.calls = 0

    def __call__(self, given) -> int:
        self.calls += 1
        given.execute(self.insert)
        self.between(given)
        if self.calls == 1:
            given.execute(FAIL)
        return self.calls


@pytest.fixture
def count(observer, table):
    return lambda: observer.value(f"select count(*) from {table}")


@pytest.mark.parametrize("wrap", [lambda engine: engine, sessionmaker])
@pytest.mark.parametrize("where", ["engine", "options", "driver"])
def test_engine_without_transactions_is_refused(
    make_engine, pg_url, driver, table, count, wrap, where
):
    options = {"isolation_level": "AUTOCOMMIT"} if where == "engine" else {}
    engine = make_engine(pg_url(driver), **options)
    if where == "options":
        engine = engine.execution_options(isolation_level="AUTOCOMMIT")
    if where == "driver":
        on = lambda connection, _: setattr(connection, "autocommit", True)  # noqa: E731
        event.listen(engine, "connect", on)
    with pytest.raises(exc.InvalidRequestError, match="AUTOCOMMIT"):
        poolproof.run_transaction(wrap(engine), Failing(table), backoff=QUICK)
    assert count() == 0
    assert engine.pool.checkedout() == 0


def test_session_that_turns_transactions_off_is_refused(engine, table, count):
    unit = Failing(table)

    def first(session):
        off = {"isolation_level": "AUTOCOMMIT"}
        session.connection(execution_options=off)
        unit(session)

    with pytest.raises(exc.InvalidRequestError, match="AUTOCOMMIT"):
        poolproof.run_transaction(sessionmaker(engine), first, backoff=QUICK)
    assert count() == 0


@pytest.mark.parametrize("wrap", [lambda engine: engine, sessionmaker])
def test_error_that_the_unit_swallows_is_no_success(engine, table, count, wrap):
    """The server answers such a commit with a rollback, and drivers say nothing."""

    def unit(given):
        given.execute(text(f"insert into {table} values (1)"))
        with pytest.raises(exc.DBAPIError):
            given.execute(FAIL)

    with pytest.raises(exc.InvalidRequestError, match="answer the commit with a roll"):
        poolproof.run_transaction(wrap(engine), unit)
    assert count() == 0


def test_error_in_a_savepoint_may_be_swallowed(engine, table, count):
    def unit(connection):
        connection.execute(text(f"insert into {table} values (1)"))
        with pytest.raises(exc.DBAPIError), connection.begin_nested():
            connection.execute(FAIL)

    poolproof.run_transaction(engine, unit)
    assert count() == 1


def test_commit_behind_the_sessions_back_is_not_repeated(engine, table, count):
    unit = Failing(table, lambda session: session.connection().commit())
    with pytest.raises(exc.DBAPIError):
        poolproof.run_transaction(sessionmaker(engine), unit, backoff=QUICK)
    unit.calls = 1
    with pytest.raises(exc.InvalidRequestError, match="ended its transaction itself"):
        poolproof.run_transaction(sessionmaker(engine), unit, backoff=QUICK)
    assert count() == 2


@pytest.mark.parametrize("by_itself", [False, True])
def test_listener_that_hears_of_the_commit_first_repeats_nothing(
    make_engine, pg_url, driver, table, count, by_itself
):
    engine = make_engine(pg_url(driver), pool_size=2)
    bind = sessionmaker(engine)
    poolproof.run_transaction(bind, lambda _: None)

    def unit(session):
        session.execute(text(f"insert into {table} values (1)"))
        if by_itself:
            session.commit()

    def failing(_):
        with engine.connect() as other:
            other.execute(FAIL)

    event.listen(bind, "after_commit", failing, insert=True)
    with pytest.raises(exc.DBAPIError):
        poolproof.run_transaction(bind, unit, backoff=QUICK)
    assert count() == 1


@pytest.mark.parametrize("verify", [False, True])
def test_database_that_a_listener_brings_in_counts(
    engine, make_engine, pg_url, driver, table, count, verify
):
    other = make_engine(pg_url(driver))
    bind = sessionmaker(engine)
    seen = []

    def bring_in(session):
        session.execute(text("select 1"), bind_arguments={"bind": other})

    def second_fails(connection):
        seen.append(connection)
        if len(seen) == 2:
            connection.execute(FAIL)

    event.listen(bind, "before_commit", bring_in)
    event.listen(engine, "commit", second_fails)
    event.listen(other, "commit", second_fails)
    with pytest.raises(poolproof.CommitOutcomeUnknown):
        poolproof.run_transaction(
            bind,
            lambda session: session.execute(text(f"insert into {table} values (1)")),
            backoff=QUICK,
            verify_commit=verify,
        )
    assert len(seen) == 2
    assert count() <= 1
    seen.clear()


def test_session_on_a_connection_is_refused(engine, table, count):
    """Its rollback would undo what came before the unit."""
    with engine.connect() as connection:
        outer = connection.begin()
        with pytest.raises(exc.InvalidRequestError, match="bound to a connection"):
            poolproof.run_transaction(sessionmaker(connection), Failing(table))
        outer.rollback()
    assert count() == 0


def test_session_in_a_savepoint_of_a_test_is_repeated(engine, table, count):
    with engine.connect() as connection:
        outer = connection.begin()
        bind = sessionmaker(connection, join_transaction_mode="create_savepoint")
        assert poolproof.run_transaction(bind, Failing(table), backoff=QUICK) == 2
        assert connection.scalar(text(f"select count(*) from {table}")) == 1
        outer.rollback()
    assert count() == 0


def test_what_a_listener_writes_in_the_commit_is_verified(proxied, link, table, count):
    """The unit itself has written nothing."""
    engine = proxied()
    cut = []

    def write(connection):
        connection.execute(text(f"insert into {table} values (1)"))
        lost = link()
        lost.stall_answers(b"COMMIT")
        cut.append(threading.Timer(0.3, lost.cut))
        cut[-1].start()

    event.listen(engine, "commit", write)
    calls = []
    poolproof.run_transaction(engine, calls.append, verify_commit=True, backoff=QUICK)
    cut[0].join()
    assert len(cut) == len(calls) == 1
    assert count() == 1
    calls.clear()


def test_number_that_the_server_has_forgotten_is_not_anothers(
    make_engine, pg_url, observer, table
):
    """After a crash the number of a lost transaction is given away again."""
    engine = make_engine(pg_url("psycopg2"))
    with engine.connect() as connection:
        now = commit_status.mark(connection)
    lost = commit_status.Mark(now.xid + 5, now.timeline, now.counts_from)

    def give_away():
        for _ in range(10):
            observer.rows(f"insert into {table} values (1)")

    later = threading.Timer(0.3, give_away)
    later.start()
    course = Course("a unit", 1, 10, QUICK)
    assert commit_status.ask(engine, lost, course, time.sleep, OSError()) == "aborted"
    later.join()


@pytest.mark.parametrize("form", ["function", "result"])
def test_generator_is_refused(engine, form):
    def generating(_):
        yield 1

    unit = generating if form == "function" else lambda _: generating(_)
    with pytest.raises(TypeError, match="generator"):
        poolproof.run_transaction(engine, unit)


@dataclass(frozen=True)
class FrozenError(Exception):
    """Cannot be written to."""

    code: int = 1


class SilentError(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise LookupError


@pytest.mark.parametrize("kind", [FrozenError, SilentError])
def test_errors_own_oddities_do_not_hide_it(make_engine, pg_url, kind):
    engine = make_engine(pg_url("psycopg2"))
    forget = register(Fault.SERIALIZATION, exception=kind)

    def unit(_):
        raise kind

    try:
        with pytest.raises(kind) as caught:
            poolproof.run_transaction(engine, unit, attempts=2, backoff=QUICK)
    finally:
        forget()
    (note,) = caught.value.__notes__
    assert kind.__name__ in note


@pytest.mark.parametrize("pause", [float("inf"), float("nan")])
def test_backoff_that_is_no_length_is_told(make_engine, pg_url, pause):
    engine = make_engine(pg_url("psycopg2"))
    with pytest.raises(ValueError, match="backoff chose") as caught:
        poolproof.run_transaction(
            engine, lambda c: c.execute(FAIL), backoff=lambda _: pause
        )
    assert isinstance(caught.value.__context__, exc.DBAPIError)


def test_interruption_cannot_be_asked_for(engine):
    with pytest.raises(ValueError, match="INTERRUPTED"):
        poolproof.run_transaction(engine, lambda _: None, also=Fault.INTERRUPTED)


def test_listeners_are_those_of_units_alone(engine):
    """A session beside a unit may be as it likes."""
    poolproof.run_transaction(sessionmaker(engine), lambda _: None)
    with engine.connect() as connection, Session(connection) as session:
        session.execute(text("select 1"))


# --- after the commit -----------------------------------------------------------------


@pytest.mark.parametrize("orm", [False, True])
def test_connection_that_breaks_on_its_way_back_is_no_failure(
    engine, table, count, observer, attempted, orm
):
    """All is done; what leaves close() is the driver's own error, not SQLAlchemy's."""
    ended = []

    @event.listens_for(engine, "checkin")
    def ask(connection, record):
        if not ended:
            ended.append(observer.end(backend.pid_of(record)))
            connection.cursor().execute("select 1")

    def unit(given):
        given.execute(text(f"insert into {table} values (1)"))
        return "done"

    bind = sessionmaker(engine) if orm else engine
    assert poolproof.run_transaction(bind, unit, backoff=QUICK) == "done"
    assert ended == [True]
    assert count() == 1
    assert [one.error for one in attempted] == [None]


class _MishapError(Exception):
    pass


@pytest.mark.parametrize("kind", [_MishapError, ZeroDivisionError, TimeoutError])
@pytest.mark.parametrize("orm", [False, True])
def test_error_of_a_listener_of_the_way_back_is_raised(engine, table, count, orm, kind):
    raised = []

    @event.listens_for(engine, "checkin")
    def fail(_connection, _record):
        if not raised:
            raised.append(1)
            raise kind

    def unit(given):
        given.execute(text(f"insert into {table} values (1)"))

    with pytest.raises(kind):
        poolproof.run_transaction(
            sessionmaker(engine) if orm else engine, unit, backoff=QUICK
        )
    assert count() == 1
