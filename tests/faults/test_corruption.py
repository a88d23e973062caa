"""Answers that do not belong to the questions, made by a proxy or a stray query."""

from __future__ import annotations

import os
import struct

import pytest
import sqlalchemy as sa

import poolproof
from plugins.harm import driver_connections, first_error, message
from plugins.threads import eventually
from poolproof import Fault

SELECT = sa.text("select 42")

# What is put before the next answer; each gives the drivers another message.
DESCRIPTION = message(
    b"T", struct.pack("!h", 1) + b"x\0" + struct.pack("!ihihih", 0, 0, 23, 4, -1, 0)
)
ONE_ROW = message(b"D", struct.pack("!hi", 1, 1) + b"7")
STRAY = {
    "no message of the protocol": b"\x01\x02\x03\x04\x05\x06",
    "a message longer than memory": b"Q" + struct.pack("!i", 0x7FFFFFFF),
    "a row without description": ONE_ROW,
    "a row shorter than it says": DESCRIPTION
    + message(b"D", struct.pack("!hi", 1, 50) + b"x"),
    "a description shorter than it says": message(b"T", b"\0\2x\0" + b"\0" * 18),
    "a description longer than it says": message(b"T", DESCRIPTION[5:] + b"more"),
    "a row of another shape": DESCRIPTION
    + message(b"D", struct.pack("!hii", 2, -1, -1)),
    "a message of an unknown kind": message(b"?"),
    "a copy": message(b"G", b"\0\0\0"),
    "a whole answer": DESCRIPTION + ONE_ROW + message(b"C", b"SELECT 1\0"),
    "the end of an answer": message(b"Z", b"I"),
    "an unnamed statement is missing": message(
        b"E", b"SERROR\0VERROR\0C26000\0Munnamed prepared statement does not exist\0\0"
    ),
    "a portal is missing": message(
        b"E", b'SERROR\0VERROR\0C34000\0Mportal "" does not exist\0\0'
    ),
    "a protocol violation": message(
        b"E", b"SERROR\0VERROR\0C08P01\0Mbind message supplies 1 parameters\0\0"
    ),
}

# Where the driver notices. It cannot where it throws the stray bytes away (libpq before
# an answer that comes whole in the same segment), and where it takes them for its own
# answer (pg8000): those are for the look at the socket, not for the guard.
NOTICED = [
    *(
        (driver, name)
        for driver in ("psycopg2", "psycopg")
        for name in (
            "no message of the protocol",
            "a message longer than memory",
            "a row without description",
            "a row shorter than it says",
            "a description shorter than it says",
            "a row of another shape",
            "a copy",
            "the end of an answer",
        )
    ),
    ("psycopg", "a description longer than it says"),
    ("psycopg", "a whole answer"),
    ("psycopg", "an unnamed statement is missing"),
    ("pg8000", "no message of the protocol"),
    ("pg8000", "a message longer than memory"),
    ("pg8000", "a row without description"),
    ("pg8000", "a description shorter than it says"),
    ("pg8000", "a message of an unknown kind"),
    ("pg8000", "a copy"),
    ("pg8000", "an unnamed statement is missing"),
    ("pg8000", "a portal is missing"),
    ("pg8000", "a protocol violation"),
]


def poison(engine, proxy, name, *, commit=False):
    """Use one connection while stray bytes arrive; return the error and that one."""
    with engine.connect() as connection:
        if commit:
            connection.execute(SELECT)
        driver_connection = connection.connection.driver_connection
        proxy.inject(STRAY[name])
        error = first_error(
            connection.commit if commit else lambda: connection.execute(SELECT)
        )
        return error, driver_connection


@pytest.mark.parametrize("commit", [False, True], ids=["execute", "commit"])
@pytest.mark.parametrize(("driver", "name"), NOTICED)
def test_corruption_costs_exactly_the_one_connection(
    make_engine, proxy, events, driver, name, commit
):
    engine = make_engine(driver, proxy, pool_size=3)
    poolproof.guard(engine)
    before = driver_connections(engine, 3)

    error, poisoned = poison(engine, proxy, name, commit=commit)

    after = driver_connections(engine, 3)
    assert poisoned not in after
    assert len({id(one) for one in before} & {id(one) for one in after}) == 2
    (event,) = events
    assert event.fault is Fault.CORRUPTION
    assert event.verdict.cost == "connection"
    assert event.verdict.outcome == "unknown"
    assert event.exception is getattr(error, "orig", error)
    with engine.connect() as connection:
        assert connection.execute(SELECT).scalar() == 42


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        ("psycopg2", "a row without description"),
        ("psycopg", "a whole answer"),
        ("pg8000", "a row without description"),
    ],
)
def test_without_the_guard_the_connection_is_handed_out_again(
    make_engine, proxy, driver, name
):
    engine = make_engine(driver, proxy, pool_size=1)
    _, poisoned = poison(engine, proxy, name)
    assert driver_connections(engine, 1) == [poisoned]


def send_stray_query(engine, statement):
    """Write a query to an idle connection's socket, behind the driver's back."""
    with engine.connect() as connection:
        driver_connection = connection.connection.driver_connection
    os.write(driver_connection.fileno(), message(b"Q", statement.encode() + b"\0"))
    return driver_connection


def errors_of(engine, requests):
    found = []
    for _ in range(requests):
        try:
            with engine.connect() as connection:
                connection.execute(SELECT)
        except sa.exc.DBAPIError as error:
            found.append(error)
    return found


def test_after_tuples_ok_the_connection_is_handed_out_again_without_the_guard(
    make_engine,
):
    engine = make_engine("psycopg2", pool_size=1)
    poisoned = send_stray_query(engine, "select 'stray'")
    (error,) = errors_of(engine, 1)
    assert "PGRES_TUPLES_OK" in str(error)
    assert not error.connection_invalidated
    # What comes next depends on how the answers fall into segments.
    assert driver_connections(engine, 1) == [poisoned]


def test_tuples_ok_costs_one_request_and_one_connection(make_engine, events, observer):
    engine = make_engine("psycopg2", pool_size=2)
    poolproof.guard(engine)
    before = driver_connections(engine, 2)
    poisoned = send_stray_query(engine, "select 'stray'")
    pid = poisoned.info.backend_pid

    assert len(errors_of(engine, 8)) == 1

    (event,) = events
    assert (event.fault, event.backend_pid) == (Fault.CORRUPTION, pid)
    after = driver_connections(engine, 2)
    assert poisoned not in after
    assert set(before) - {poisoned} <= set(after)
    eventually(lambda: pid not in observer.backends(), what=f"the end of {pid}")


def test_a_syntax_error_of_another_statement_is_corruption(make_engine, events):
    engine = make_engine("psycopg2", pool_size=1)
    poolproof.guard(engine)
    send_stray_query(engine, "selec 'stray'")
    (error,) = errors_of(engine, 3)
    assert error.orig.pgcode == "42601"
    assert [event.fault for event in events] == [Fault.CORRUPTION]


def test_a_syntax_error_of_ones_own_is_not(make_engine, driver, events):
    engine = make_engine(driver, pool_size=1)
    poolproof.guard(engine)
    (before,) = driver_connections(engine, 1)
    with engine.connect() as connection:
        first_error(lambda: connection.execute(sa.text("selec 'stray'")))
    assert driver_connections(engine, 1) == [before]
    assert events == []
