"""Units of work that are given a session."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import create_engine, event, exc, text
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    scoped_session,
    sessionmaker,
)

import poolproof
from plugins.threads import eventually

QUICK = poolproof.Backoff(first=0.001, most=0.01)
BACKEND = text("select pg_backend_pid()")
FAIL = text("do $$ begin raise sqlstate '40001'; end $$")


class Base(DeclarativeBase):
    """What the tests map."""


class Row(Base):
    """A row of a table that a fixture makes."""

    __tablename__ = "retry_row"
    n: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture
def engine(make_engine, pg_url, driver, observer):
    engine = make_engine(pg_url(driver), pool_size=2)
    observer.rows("create table retry_row (n integer)")
    yield engine
    observer.rows("drop table retry_row")


@pytest.fixture(params=["sessionmaker", "scoped_session", "flask"])
def bind(request, engine):
    if request.param == "sessionmaker":
        yield sessionmaker(engine)
        return
    scoped = scoped_session(sessionmaker(engine))
    if request.param == "scoped_session":
        yield scoped
    else:
        # As Flask-SQLAlchemy's extension is made: its `session` is what counts.
        yield type("db", (), {"session": scoped})()
    scoped.remove()


def test_session_is_rolled_back_and_the_unit_repeated(bind, engine, observer):
    calls = []

    def unit(session):
        calls.append(session.scalar(BACKEND))
        session.add(Row(n=len(calls)))
        if len(calls) < 3:
            session.execute(FAIL)
        return len(calls)

    assert poolproof.run_transaction(bind, unit, backoff=QUICK) == 3
    assert observer.rows("select n from retry_row") == [(3,)]
    assert engine.pool.checkedout() == 0


def test_lost_connection_is_replaced(bind, observer):
    pids = []

    def unit(session):
        pids.append(session.scalar(BACKEND))
        if len(pids) == 1:
            observer.terminate(pids[0])
        session.add(Row(n=len(pids)))

    poolproof.run_transaction(bind, unit, backoff=QUICK)
    assert len(set(pids)) == 2
    assert observer.rows("select n from retry_row") == [(2,)]


def test_what_is_left_to_the_flush_of_the_commit_is_part_of_the_unit(bind, observer):
    observer.rows("insert into retry_row values (0)")
    calls = []

    def unit(session):
        calls.append(1)
        session.add(Row(n=len(calls)))

    def failing(session):
        if len(calls) == 1:
            session.execute(FAIL)

    event.listen(Session, "before_commit", failing)
    try:
        poolproof.run_transaction(bind, unit, backoff=QUICK)
    finally:
        event.remove(Session, "before_commit", failing)
    assert observer.rows("select n from retry_row order by n") == [(0,), (2,)]


def test_error_after_the_commit_repeats_nothing(bind, observer):
    """A listener's own database error looks just like one that could be repeated."""
    calls = []

    def unit(session):
        calls.append(1)
        session.add(Row(n=len(calls)))

    def failing(session):
        with session.get_bind().connect() as other:
            other.execute(FAIL)

    event.listen(Session, "after_commit", failing)
    try:
        with pytest.raises(exc.DBAPIError):
            poolproof.run_transaction(bind, unit, backoff=QUICK)
    finally:
        event.remove(Session, "after_commit", failing)
    assert calls == [1]
    assert observer.rows("select n from retry_row") == [(1,)]


def test_open_transaction_of_the_session_is_refused(engine):
    scoped = scoped_session(sessionmaker(engine))
    scoped.scalar(BACKEND)
    with pytest.raises(exc.InvalidRequestError, match="has a transaction already"):
        poolproof.run_transaction(scoped, lambda _: pytest.fail("it ran"))
    assert scoped().in_transaction()  # and is still the caller's
    scoped.rollback()
    poolproof.run_transaction(scoped, lambda _: None)
    scoped.remove()


def test_unit_that_rolls_back_what_failed_is_repeated(bind, observer):
    """``except: session.rollback(); raise`` is what many have in their code."""
    calls = []

    def unit(session):
        calls.append(1)
        try:
            session.add(Row(n=len(calls)))
            if len(calls) == 1:
                session.execute(FAIL)
        except Exception:
            session.rollback()
            raise

    poolproof.run_transaction(bind, unit, backoff=QUICK)
    assert observer.rows("select n from retry_row") == [(2,)]


@pytest.mark.parametrize("failing", [True, False])
def test_unit_that_commits_itself_is_not_repeated(bind, observer, failing):
    calls = []

    def unit(session):
        calls.append(1)
        session.add(Row(n=len(calls)))
        session.commit()
        if failing:
            session.execute(FAIL)

    kind = exc.DBAPIError if failing else exc.InvalidRequestError
    with pytest.raises(kind):
        poolproof.run_transaction(bind, unit, backoff=QUICK)
    assert calls == [1]
    assert observer.rows("select n from retry_row") == [(1,)]


def test_savepoints_of_the_unit_are_its_own(bind, observer):
    calls = []

    def unit(session):
        calls.append(1)
        with session.begin_nested():
            session.add(Row(n=len(calls)))
        if len(calls) == 1:
            session.execute(FAIL)

    poolproof.run_transaction(bind, unit, backoff=QUICK)
    assert observer.rows("select n from retry_row") == [(2,)]


def test_lost_commit_is_found_to_be_done(proxied, link, observer, engine):
    through = proxied()
    calls = []

    def unit(session):
        calls.append(1)
        session.add(Row(n=len(calls)))
        return len(calls)

    def lose(_):
        lost = link()
        lost.stall_answers(b"COMMIT")
        timers.append(threading.Thread(target=cut, args=(lost,)))
        timers[-1].start()

    def cut(lost):
        eventually(lambda: observer.value("select count(*) from retry_row"))
        lost.cut()

    timers = []
    event.listen(through, "commit", lose)
    bind = sessionmaker(through)
    assert poolproof.run_transaction(bind, unit, verify_commit=True, backoff=QUICK) == 1
    timers[0].join()
    assert observer.rows("select n from retry_row") == [(1,)]


def test_unit_on_two_databases_is_not_verified(engine, make_engine, pg_url, driver):
    other = make_engine(pg_url(driver))
    calls = []

    def unit(session):
        calls.append(1)
        for one in (engine, other):
            session.execute(text("select 1"), bind_arguments={"bind": one})

    with pytest.raises(exc.InvalidRequestError, match="one database"):
        poolproof.run_transaction(sessionmaker(engine), unit, verify_commit=True)
    assert calls == [1]


def test_half_committed_unit_on_two_databases_is_not_repeated(
    engine, make_engine, pg_url, driver, observer
):
    other = make_engine(pg_url(driver))
    done = []

    def second_fails(connection):
        done.append(connection)
        if len(done) == 2:
            connection.execute(FAIL)

    calls = []

    def unit(session):
        calls.append(1)
        for one in (engine, other):
            insert = text("insert into retry_row values (:n)")
            session.execute(insert, {"n": 1}, bind_arguments={"bind": one})

    event.listen(engine, "commit", second_fails)
    event.listen(other, "commit", second_fails)
    with pytest.raises(poolproof.CommitOutcomeUnknown):
        poolproof.run_transaction(sessionmaker(engine), unit, backoff=QUICK)
    assert calls == [1]
    assert observer.rows("select n from retry_row") == [(1,)]


def test_session_is_refused_as_a_bind():
    with (
        Session(create_engine("sqlite://")) as session,
        pytest.raises(TypeError, match="a checkout of its own"),
    ):
        poolproof.run_transaction(session, lambda _: None)


def test_isolation_level_is_for_the_transaction(bind):
    level = text("show transaction_isolation")
    unit = lambda session: session.scalar(level)  # noqa: E731
    strict = poolproof.run_transaction(bind, unit, isolation_level="SERIALIZABLE")
    assert strict == "serializable"
    assert poolproof.run_transaction(bind, unit) == "read committed"


class Other(Base):
    """A row of a table that is bound to another engine."""

    __tablename__ = "retry_other"
    n: Mapped[int] = mapped_column(primary_key=True)


@pytest.mark.parametrize("default", [True, False], ids=["with a bind", "binds alone"])
def test_isolation_level_is_for_each_engine_of_the_session(
    engine, make_engine, pg_url, driver, default
):
    other = make_engine(pg_url(driver))
    binds = {Row: engine, Other: other}
    factory = sessionmaker(engine if default else None, binds=binds)
    level = text("show transaction_isolation")

    def unit(session):
        of = [{"mapper": Other}, {"mapper": Row}]
        return [session.scalar(level, bind_arguments=arguments) for arguments in of]

    strict = poolproof.run_transaction(factory, unit, isolation_level="SERIALIZABLE")
    assert strict == ["serializable"] * 2
    assert poolproof.run_transaction(factory, unit) == ["read committed"] * 2


def test_isolation_level_takes_no_engine_into_a_unit_that_does_not_use_it(
    engine, make_engine, pg_url, driver
):
    other = make_engine(pg_url(driver))
    poolproof.run_transaction(
        sessionmaker(engine, binds={Other: other}),
        lambda session: session.scalar(BACKEND, bind_arguments={"mapper": Other}),
        isolation_level="SERIALIZABLE",
        verify_commit=True,
    )
    assert engine.pool.stats().checkouts_total == 0


def test_isolation_level_that_a_begun_connection_cannot_take_is_refused(engine):
    with engine.connect() as connection, connection.begin():
        factory = sessionmaker(connection, join_transaction_mode="create_savepoint")
        unit = lambda session: session.execute(text("select 1"))  # noqa: E731
        with pytest.raises(exc.InvalidRequestError, match="isolation_level"):
            poolproof.run_transaction(factory, unit, isolation_level="SERIALIZABLE")
