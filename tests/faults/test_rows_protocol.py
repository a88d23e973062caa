"""Rows about answers that do not fit, and about connections that broke."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from plugins.debian_server import self_signed
from plugins.harm import first_error, message, struck
from plugins.rows import decided_by, row
from plugins.tls import TlsProxy
from poolproof import Fault

SELECT = sa.text("select 42")

DESCRIPTION = message(
    b"T", struct.pack("!h", 1) + b"x\0" + struct.pack("!ihihih", 0, 0, 23, 4, -1, 0)
)
STRAY = {
    "nonsense": b"\x01\x02\x03\x04\x05\x06",
    "a ready": message(b"Z", b"I"),
    "a row": message(b"D", struct.pack("!hi", 1, 1) + b"7"),
    "a short row": DESCRIPTION + message(b"D", struct.pack("!hi", 1, 50) + b"x"),
    "a wide row": DESCRIPTION + message(b"D", struct.pack("!hii", 2, -1, -1)),
    "a long end": message(b"C", b"SELECT 1\0more"),
    "an unknown message": message(b"?"),
    "a copy in": message(b"G", b"\0\0\0"),
    "a copy out": message(b"H", b"\0\0\0"),
    "a missing statement": message(
        b"E", b"SERROR\0VERROR\0C26000\0Munnamed prepared statement does not exist\0\0"
    ),
    "a missing portal": message(
        b"E", b'SERROR\0VERROR\0C34000\0Mportal "" does not exist\0\0'
    ),
}


@pytest.mark.parametrize(
    ("driver", "stray", "during", "expected"),
    [
        ("psycopg2", "a copy in", "commit", row("begins `error with status PGRES_")),
        ("psycopg2", "a ready", "execute", row("an empty message")),
        ("psycopg2", "a ready", "commit", row("message `unknown error`")),
        ("psycopg2", "nonsense", "execute", row("lost synchronization with server")),
        ("psycopg2", "a short row", "commit", row("insufficient data in")),
        ("psycopg", "a long end", "execute", row("contents do not agree with length")),
        ("psycopg2", "a row", "execute", row("server sent data", "without prior row")),
        ("psycopg", "a wide row", "execute", row("unexpected field count in")),
        ("psycopg", "an unknown message", "execute", row("first received character")),
        ("psycopg", "a ready", "commit", row("begins `received `")),
        ("psycopg", "a ready", "execute", row("got no result from the query")),
        ("psycopg", "a copy in", "commit", row("begins `unexpected result `")),
        ("pg8000", "a row", "execute", row("pg8000.core:handle_messages")),
        ("pg8000", "a copy in", "execute", row("handle_COPY_IN_RESPONSE")),
        ("pg8000", "a copy out", "execute", row("handle_COPY_OUT_RESPONSE")),
        ("pg8000", "a missing statement", "execute", row("SQLSTATE `26000`")),
        ("pg8000", "a missing portal", "execute", row("SQLSTATE `34000`")),
    ],
)
def test_a_stray_answer_is_corruption(
    make_engine, proxy, driver, stray, during, expected
):
    engine = make_engine(driver, proxy)
    with engine.connect() as connection:
        connection.execute(SELECT)
        proxy.inject(STRAY[stray])
        error = first_error(
            connection.commit
            if during == "commit"
            else lambda: connection.execute(SELECT)
        )
        connection.invalidate()
    assert decided_by(error) == expected
    assert expected.fault is Fault.CORRUPTION


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_a_copy_of_ones_own_is_suspect_because_a_stray_one_looks_the_same(
    make_engine, proxy, driver
):
    expected = row("can't execute COPY")
    if driver == "psycopg":
        expected = row("COPY cannot be")
    engine = make_engine(driver, proxy)
    for text in ("copy (select 1) to stdout", "select 42"):
        with engine.connect() as connection:
            connection.execute(SELECT)
            if text == "select 42":
                proxy.inject(STRAY["a copy out"])
            error = first_error(lambda c=connection, t=text: c.execute(sa.text(t)))
            assert decided_by(error) == expected
            connection.invalidate()
    assert expected.fault is Fault.SUSPECT


def test_a_command_that_is_under_way_is_corruption_to_the_next(make_engine):
    engine = make_engine("psycopg")
    with engine.connect() as connection:
        connection.execute(SELECT)
        connection.connection.driver_connection.pgconn.send_query(b"select 1")
        error = first_error(lambda: connection.execute(SELECT))
        connection.invalidate()
    assert decided_by(error) == row("another command is already in progress")


def test_a_batch_that_something_ended_is_corruption(make_engine, observer):
    """The caller's own error, in the middle of a batch, is hidden by the driver's."""
    engine = make_engine("psycopg")
    statement = sa.text("select cast(:n as integer), pg_sleep(2)")

    def handler(*_):
        raise LookupError("mine")

    with engine.connect() as connection:
        batch = [{"n": 1}, {"n": 2}, {"n": 3}]
        error = struck(observer, handler, lambda: connection.execute(statement, batch))
        connection.invalidate()
    assert decided_by(error) == row("cannot exit pipeline mode while ")


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_a_syntax_error_of_another_statement_is_corruption(make_engine, driver):
    engine = make_engine(driver)
    with engine.connect() as connection:
        connection.execute(SELECT)
        number = connection.connection.driver_connection.fileno()
        os.write(number, message(b"Q", b"selec 'stray'\0"))
        error = first_error(lambda: [connection.execute(SELECT) for _ in range(3)])
        connection.invalidate()
    assert decided_by(error) == row("SQLSTATE `42601`")


def test_a_server_that_is_told_nonsense_says_so(make_engine):
    engine = make_engine("psycopg")
    with engine.connect() as connection:
        connection.execute(SELECT)
        number = connection.connection.driver_connection.fileno()
        os.write(number, message(b"?"))
        error = first_error(lambda: connection.execute(SELECT))
    assert decided_by(error) == row("SQLSTATE `08P01`")


def test_a_bind_that_does_not_fit_its_statement_is_corruption(pg):
    with psycopg.connect(host=pg.host, port=pg.port, user="postgres") as connection:
        result = connection.pgconn.exec_params(b"select $1, $2", [b"1"])
        error = psycopg.errors.error_from_result(result)
    assert decided_by(error) == row("SQLSTATE `08P01`")


def test_a_08_that_the_session_survives_is_suspect(make_engine, driver, events):
    """As dblink and postgres_fdw report connections of the server's own."""
    engine = make_engine(driver)
    with engine.connect() as connection:
        raising = "do $$ begin raise exception 'gone' using errcode = '08006'; end $$"
        error = first_error(lambda: connection.execute(sa.text(raising)))
        connection.rollback()
        assert connection.execute(SELECT).scalar() == 42
    assert decided_by(error) == row("SQLSTATE class `08`", "`ERROR`")
    assert not error.connection_invalidated


# --- the connection broke -------------------------------------------------------------


def shut(connection):
    descriptor = connection.fileno()
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        copy.shutdown(socket.SHUT_RDWR)


def replace(connection):
    """Put another file under the driver's descriptor, as a stray close may do."""
    with Path(os.devnull).open("rb+") as other:
        os.dup2(other.fileno(), connection.fileno())


@pytest.mark.parametrize(
    ("driver", "harm", "expected"),
    [
        ("psycopg2", shut, row("message has `server closed the connection")),
        ("psycopg", shut, row("message has `server closed the connection")),
        ("psycopg2", replace, row("could not receive data from server")),
        ("psycopg2", lambda c: c.close(), row("begins `connection already closed`")),
        ("psycopg", lambda c: c.close(), row("psycopg", "`the connection is closed`")),
        ("pg8000", lambda c: shut(c._usock), row("message `network error`")),
        (
            "pg8000",
            lambda c: c.close(),
            row("pg8000", "message `connection is closed`"),
        ),
    ],
)
def test_a_connection_that_broke_is_lost(make_engine, driver, harm, expected):
    engine = make_engine(driver)
    with engine.connect() as connection:
        connection.execute(SELECT)
        harm(connection.connection.driver_connection)
        error = first_error(lambda: connection.execute(SELECT))
        connection.invalidate()
    assert decided_by(error) == expected
    assert expected.fault is Fault.CONNECTION_LOST


def test_a_connection_whose_socket_libpq_has_closed_is_lost(make_engine):
    engine = make_engine("psycopg")
    with engine.connect() as connection:
        connection.execute(SELECT)
        raw = connection.connection.driver_connection
        shut(raw)
        first_error(lambda: connection.execute(SELECT))
        error = first_error(lambda: raw.pgconn.socket)
    assert decided_by(error) == row("psycopg", "`the connection is lost`")


def test_a_reset_that_pg8000_lets_through_is_a_loss(make_engine, proxy):
    engine = make_engine("pg8000", proxy)
    with engine.connect() as connection:
        connection.execute(SELECT)
        proxy.reset()
        error = first_error(lambda: connection.execute(SELECT))
        connection.invalidate()
    assert decided_by(error) == row("pg8000", "builtins.ConnectionError")


def test_a_timeout_of_pg8000s_own_is_a_loss(make_engine):
    engine = make_engine("pg8000", connect_args={"timeout": 1})
    with engine.connect() as connection:
        error = first_error(lambda: connection.execute(sa.text("select pg_sleep(9)")))
        connection.invalidate()
    assert decided_by(error) == row("pg8000", "builtins.TimeoutError")


# --- under TLS ------------------------------------------------------------------------


@pytest.fixture
def tls(pg, tmp_path):
    made = TlsProxy((pg.host, pg.port), *self_signed(tmp_path))
    yield made
    made.close()


@pytest.mark.parametrize(
    ("driver", "how", "expected"),
    [
        ("psycopg2", "say_goodbye", {row("SSL connection has been closed")}),
        # Which of these it is depends on the driver's OpenSSL, and on whether the
        # connection's end was there as early as the goodbye.
        (
            "psycopg",
            "say_goodbye",
            {
                row("SSL connection has been closed"),
                row("has `SSL error: unexpected eof"),
            },
        ),
        (
            "psycopg2",
            "cut",
            {row("has `SSL error: unexpected eof"), row("has `SSL SYS")},
        ),
        (
            "psycopg",
            "cut",
            {row("has `SSL error: unexpected eof"), row("has `SSL SYS")},
        ),
    ],
)
def test_tls_that_ends_is_a_lost_connection(make_engine, tls, driver, how, expected):
    engine = make_engine(driver, tls, connect_args={"sslmode": "require"})
    with engine.connect() as connection:
        connection.execute(SELECT)
        getattr(tls, how)()
        error = first_error(lambda: connection.execute(SELECT))
        with suppress(Exception):
            connection.invalidate()
    assert decided_by(error) in expected
