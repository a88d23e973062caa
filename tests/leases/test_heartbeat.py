"""A heartbeat beats while the application works, and no longer."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest

from poolproof import AsyncHeartbeat, ControlError, Heartbeat


@pytest.fixture
def beats(table, observer):
    """Count the beats that the server saw."""
    observer.rows(f"insert into {table} values (0)")
    return lambda: observer.value(f"select n from {table}")


def test_it_beats_until_the_block_ends(engine, table, beats, eventually):
    with Heartbeat(engine, f"update {table} set n = n + $1", [1], every=0.1) as beating:
        assert beats() >= 1
        eventually(lambda: beats() >= 4)
    last = beats()
    assert last >= beating.stats().beats
    assert beats() == last


def test_it_rests_while_the_application_gives_no_sign_of_life(
    engine, table, beats, eventually
):
    query = f"update {table} set n = n + 1"
    with Heartbeat(engine, query, every=0.1, stale_after=0.3) as beating:
        eventually(lambda: beating.stats().is_stale)
        rested = beats()
        assert beating.stats().is_stale
        assert beats() == rested
        beating.beat()
        eventually(lambda: beats() > rested)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (7, "int"),
        (-1.5, "float8"),
        ("it's", "text"),
        (None, "text"),
        (True, "bool"),
        (uuid.uuid4(), "uuid"),
        (dt.date(2020, 1, 2), "date"),
        (dt.datetime(2020, 1, 2, tzinfo=dt.timezone.utc), "timestamptz"),
    ],
)
def test_values_arrive_as_they_are(engine, observer, value, kind):
    observer.rows(f"create table seen_value (v {kind})")
    try:
        with Heartbeat(engine, "insert into seen_value values ($1)", [value], every=60):
            assert observer.value("select v from seen_value") == value
    finally:
        observer.rows("drop table seen_value")


def test_its_repr_says_what_it_does(engine, make_engine, eventually):
    beating = Heartbeat(engine, "select 1", every=0.1, stale_after=0.3)
    assert repr(beating) == "<Heartbeat new>"
    assert repr(AsyncHeartbeat(engine, "select 1")) == "<AsyncHeartbeat new>"
    with beating:
        eventually(lambda: repr(beating) == "<Heartbeat stale>")
        beating.beat()
        eventually(lambda: repr(beating) == "<Heartbeat beating>")
    assert repr(beating) == "<Heartbeat stopped>"
    away = make_engine("postgresql+psycopg2://app@127.0.0.1:1/app")
    with Heartbeat(away, "select 1") as failing:
        assert repr(failing) == "<Heartbeat failing>"


def test_a_statement_that_the_server_refuses_is_an_error_at_once(engine):
    with pytest.raises(ControlError, match="no_such_table") as caught:
        Heartbeat(engine, "update no_such_table set n = 1").start()
    assert caught.value.sqlstate == "42P01"


@pytest.mark.parametrize(
    ("values", "sqlstate"), [([], "08P01"), ([1, 2], "42P18")], ids=["less", "more"]
)
def test_a_wrong_number_of_values_is_an_error_at_once(engine, values, sqlstate):
    with pytest.raises(ControlError, match="parameter") as caught:
        Heartbeat(engine, "select $1::int", values).start()
    assert caught.value.sqlstate == sqlstate


def test_the_last_numbers_are_kept(engine, eventually):
    beating = Heartbeat(engine, "select 1", every=0.1)
    assert beating.stats() == (0, 0, None, False)
    with beating:
        eventually(lambda: beating.stats().beats >= 2)
    assert beating.stats().beats >= 2
    assert beating.stats() == beating.stats()


def test_a_lost_connection_is_replaced(
    pg_url, make_engine, table, beats, observer, eventually
):
    engine = make_engine(pg_url("psycopg2", application_name="beating"))
    query = f"update {table} set n = n + 1"
    with Heartbeat(engine, query, every=0.1):
        for pid in observer.backends("beating poolproof-control"):
            observer.terminate(pid)
        seen = beats()
        eventually(lambda: beats() > seen + 1)
