"""What is wrong is refused with a sentence, before anything runs."""

from __future__ import annotations

import asyncio
import os
import pickle

import pytest
from sqlalchemy import create_engine, exc, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from poolproof import (
    AsyncHeartbeat,
    AsyncLease,
    ControlError,
    Heartbeat,
    Lease,
    LeaseForked,
    LeaseLost,
    LeaseTimeout,
)
from poolproof.cli.main import main


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"ttl": 0.9}, "1 or more"),
        ({"ttl": float("nan")}, "1 or more"),
        ({"ttl": float("inf")}, "1 or more"),
        ({"ttl": "60"}, "1 or more"),
        ({"ttl": None}, "1 or more"),
        ({"timeout": -1}, "^timeout is -1, but must be seconds, 0 or more, or None$"),
        ({"timeout": "5"}, "convert"),
        ({"steal_grace": None}, "0 or more"),
        ({"max_silence": -1}, "more than 0"),
        ({"max_silence": 0}, "more than 0"),
        ({"application": 5}, "application must be text"),
        ({"application": "a\0"}, "application has U.0000 at position 1"),
        ({"control_dsn": 5}, "control_dsn must be text"),
        ({"on_lost": 3}, "function"),
        ({"name": ""}, "1 to 200"),
        ({"name": "é" * 101}, "this one has 202"),
        ({"name": "a\0b"}, "U.0000 at position 1"),
        ({"name": "xy\ud800"}, "U.D800 at position 2"),
        ({"name": 7}, "must be text"),
        ({"table": "a b"}, "letters"),
        ({"table": "a.b.c"}, "letters"),
        ({"table": 'a"; drop'}, "letters"),
        ({"table": "a" * 64}, "letters"),
    ],
)
def test_a_wrong_value_is_named(engine, given, says):
    arguments = {"name": "x", **given}
    with pytest.raises(exc.ArgumentError, match=says):
        Lease(engine, **arguments)


def test_a_name_of_200_bytes_will_do(engine):
    with Lease(engine, "é" * 100):
        pass


@pytest.mark.parametrize("bind", [None, "postgresql://x", object(), Session()])
@pytest.mark.parametrize("kind", [Lease, AsyncLease, Heartbeat, AsyncHeartbeat])
def test_what_has_no_engine_is_refused_at_once(kind, bind):
    with pytest.raises(exc.ArgumentError, match="needs an Engine"):
        kind(bind, "select 1")


def test_an_engine_that_is_not_there_yet_is_asked_for_later(engine, name):
    """As that of Flask-SQLAlchemy, before there is an application."""

    class Application:
        is_there = False

        @property
        def engine(self):
            if not self.is_there:
                raise RuntimeError("no application")
            return engine

    application = Application()
    lease = Lease(application, name)
    with pytest.raises(RuntimeError, match="no application"):
        lease.acquire()
    application.is_there = True
    with lease:
        lease.check()


@pytest.mark.parametrize("kind", ["engine", "nothing", "sessionmaker", "raw", "text"])
def test_a_guard_needs_a_connection_or_a_session(engine, name, kind):
    raw = engine.raw_connection()
    given = {
        "engine": engine,
        "nothing": None,
        "sessionmaker": sessionmaker(engine),
        "raw": raw,
        "text": "select 1",
    }
    with Lease(engine, name) as lease:
        with pytest.raises(exc.ArgumentError, match="guard needs the Connection or"):
            lease.guard(given[kind])
        lease.check()
    raw.close()


def test_a_guard_takes_a_scoped_session(engine, name):
    session = scoped_session(sessionmaker(engine))
    with Lease(engine, name) as lease:
        lease.guard(session)
        assert session().in_transaction()
        session.remove()


def test_a_guard_that_got_an_asyncio_connection_says_what_to_do(play, name):
    async def story(engine):
        lease = Lease(engine, name)
        await asyncio.to_thread(lease.acquire)
        async with engine.begin() as connection:
            with pytest.raises(exc.ArgumentError, match=r"run_sync\(lease.guard\)"):
                lease.guard(connection)
        async with AsyncSession(engine) as session:
            with pytest.raises(exc.ArgumentError, match=r"run_sync\(lease.guard\)"):
                lease.guard(session)
        await asyncio.to_thread(lease.release)

    play(story)


def test_a_lease_needs_postgresql():
    with pytest.raises(exc.ArgumentError, match="needs PostgreSQL"):
        Lease(create_engine("sqlite://"), "x").acquire()


@pytest.mark.parametrize("kind", [Lease, AsyncLease, Heartbeat, AsyncHeartbeat])
def test_an_unknown_argument_is_reported_by_a_public_name(engine, kind):
    public = kind.__name__.removeprefix("Async")
    with pytest.raises(TypeError, match=rf"^{public}\.__init__\(\) got .*'tll'"):
        kind(engine, "select 1", tll=5)


@pytest.mark.parametrize("kind", [AsyncLease, AsyncHeartbeat])
def test_a_plain_block_of_an_asyncio_one_is_refused_with_a_hint(engine, kind):
    with pytest.raises(TypeError, match="`async with`"), kind(engine, "select 1"):
        pass


@pytest.mark.parametrize("kind", [Lease, Heartbeat])
def test_an_async_block_of_a_plain_one_is_refused_with_a_hint(engine, kind):
    async def story():
        async with kind(engine, "select 1"):
            pass

    with pytest.raises(TypeError, match=f"Async{kind.__name__}"):
        asyncio.run(story())


@pytest.mark.parametrize(
    "columns", ["name text primary key", "name text, fence bigint, token text"]
)
def test_a_table_with_other_columns_is_refused(engine, observer, columns):
    observer.rows(f"create table other_leases ({columns})")
    try:
        with pytest.raises(
            ControlError, match="other columns: it lacks acquired_at"
        ) as caught:
            Lease(engine, "x", table="other_leases").acquire()
        assert caught.value.kind == "table"
    finally:
        observer.rows("drop table other_leases")


def test_a_table_without_its_keys_is_refused(engine, observer):
    """The guard relies on them: without them, it would not keep a thief out."""
    with Lease(engine, "x"):
        pass
    observer.rows("create table copied as table poolproof_lease with no data")
    try:
        with pytest.raises(ControlError, match="must each be unique"):
            Lease(engine, "x", table="copied").acquire()
    finally:
        observer.rows("drop table copied")


def test_a_view_is_refused(engine, observer):
    with Lease(engine, "x"):
        pass
    observer.rows("create view seen as table poolproof_lease")
    try:
        with pytest.raises(ControlError, match="not a table"):
            Lease(engine, "x", table="seen").acquire()
    finally:
        observer.rows("drop view seen")


def test_a_read_only_server_is_refused(pg_url, make_engine):
    engine = make_engine(
        pg_url("psycopg2", options="-c default_transaction_read_only=on")
    )
    with pytest.raises(ControlError, match="read-only") as caught:
        Lease(engine, "x", timeout=0.1).acquire()
    assert caught.value.sqlstate in {"25006", None}
    with pytest.raises(ControlError, match="read-only"):
        Lease(engine, "x", table="not_there_yet", timeout=0.1).acquire()


@pytest.fixture
def poor(observer, pg_url, make_engine):
    """Make an engine of a role that may do nothing, and a schema for it to be let in.

    The schema is that of the role's name.
    """
    role = f"poor_{os.getpid()}"
    observer.rows(f"create role {role} login")
    observer.rows("revoke create on schema public from public")
    observer.rows(f"create schema {role}")
    yield make_engine(pg_url("psycopg2").set(username=role))
    observer.rows(f"drop schema {role} cascade")
    observer.rows(f"drop role {role}")


def test_a_role_is_told_what_it_needs_until_it_has_it(poor, observer, pg_url, name):
    """No right to create in the schema, none to look into it, none on the table."""
    role = poor.url.username
    table = f"{role}.leases"

    def acquire(table):
        return Lease(poor, name, table=table, timeout=20).acquire()

    needs = (
        'poolproof lease init, and GRANT SELECT, INSERT, UPDATE ON "{}" to this role'
    )
    with pytest.raises(ControlError, match=needs.format("not_there_yet")):
        acquire("not_there_yet")
    needs = needs.format(f'{role}"."leases')
    schema = f'; and GRANT USAGE ON SCHEMA "{role}" to it'
    with pytest.raises(ControlError, match=needs + schema) as caught:
        acquire(table)
    assert caught.value.kind == "table"
    observer.rows(f"grant usage on schema {role} to {role}")
    with pytest.raises(ControlError, match=needs):
        acquire(table)
    url = pg_url("psycopg2").render_as_string(hide_password=False)
    assert main(["lease", "init", "--table", table, "--url", url]) == 0
    with pytest.raises(ControlError, match=needs):
        acquire(table)
    observer.rows(f"grant select on {table} to {role}")
    with pytest.raises(ControlError, match=needs):
        acquire(table)
    observer.rows(f"grant insert, update on {table} to {role}")
    for _ in range(2):
        with Lease(poor, name, table=table) as lease, poor.begin() as connection:
            lease.guard(connection)


def test_a_server_that_is_not_there_is_tried_until_the_timeout(make_engine):
    engine = make_engine("postgresql+psycopg2://app:hidden@127.0.0.1:1/app")
    with pytest.raises(ControlError, match="connect to 127") as caught:
        Lease(engine, "x", timeout=0.2).acquire()
    assert "hidden" not in repr(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        LeaseLost("x", "why"),
        LeaseTimeout("x", "why"),
        LeaseForked("x", 1, 2),
        ControlError("why", kind="table", sqlstate="42P01"),
    ],
)
def test_errors_survive_pickling(error):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (
        type(error),
        str(error),
        vars(error),
    )


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"statement": " "}, "statement"),
        ({"statement": text("select 1")}, "statement must be text"),
        ({"statement": "select '\0'"}, "statement has U.0000"),
        ({"values": "abc"}, "list or a tuple"),
        ({"values": b"abc"}, "list or a tuple"),
        ({"values": {"a": 1}}, "list or a tuple"),
        ({"values": ["\ud800"]}, "value 1 of the heartbeat has U.D800"),
        ({"control_dsn": 5}, "control_dsn must be text"),
        ({"every": 0}, "every"),
        ({"stale_after": "1"}, "stale_after"),
        ({"values": [object()]}, "value 1"),
    ],
)
def test_a_wrong_heartbeat_is_named(engine, given, says):
    arguments = {"statement": "select 1", **given}
    with pytest.raises(exc.ArgumentError, match=says):
        Heartbeat(engine, **arguments)
