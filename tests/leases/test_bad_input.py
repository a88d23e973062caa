"""What is wrong is refused with a sentence, before anything runs."""

from __future__ import annotations

import pickle

import pytest
from sqlalchemy import create_engine, exc

from poolproof import (
    ControlError,
    Heartbeat,
    Lease,
    LeaseForked,
    LeaseLost,
    LeaseTimeout,
)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"ttl": 0.9}, "1 or more"),
        ({"ttl": float("nan")}, "1 or more"),
        ({"ttl": float("inf")}, "1 or more"),
        ({"ttl": "60"}, "1 or more"),
        ({"ttl": None}, "1 or more"),
        ({"timeout": -1}, "0 or more"),
        ({"steal_grace": None}, "0 or more"),
        ({"max_silence": -1}, "0 or more"),
        ({"on_lost": 3}, "function"),
        ({"name": ""}, "1 to 200"),
        ({"name": "é" * 101}, "this one has 202"),
        ({"name": "a\0b"}, "zero bytes"),
        ({"name": "\ud800"}, "1 to 200"),
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


@pytest.mark.parametrize("bind", [None, "postgresql://x", object()])
def test_what_has_no_engine_is_refused(bind):
    with pytest.raises(exc.ArgumentError, match="needs an Engine"):
        Lease(bind, "x").acquire()


def test_a_lease_needs_postgresql():
    with pytest.raises(exc.ArgumentError, match="needs PostgreSQL"):
        Lease(create_engine("sqlite://"), "x").acquire()


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
        Lease(engine, "x").acquire()
    assert caught.value.sqlstate in {"25006", None}
    with pytest.raises(ControlError, match="read-only"):
        Lease(engine, "x", table="not_there_yet").acquire()


def test_a_role_that_may_not_create_the_table_is_told_who_may(
    engine, observer, pg_url, make_engine
):
    observer.rows("create role nobody_much login")
    observer.rows("revoke create on schema public from public")
    try:
        poor = make_engine(pg_url("psycopg2").set(username="nobody_much"))
        with pytest.raises(ControlError, match="poolproof lease init"):
            Lease(poor, "x", table="not_there_yet").acquire()
    finally:
        observer.rows("drop role nobody_much")


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
        ({"every": 0}, "every"),
        ({"stale_after": "1"}, "stale_after"),
        ({"values": [object()]}, "value 1"),
    ],
)
def test_a_wrong_heartbeat_is_named(engine, given, says):
    arguments = {"statement": "select 1", **given}
    with pytest.raises(exc.ArgumentError, match=says):
        Heartbeat(engine, **arguments)
