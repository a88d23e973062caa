"""What the journal keeps of a discarded connection: bounded, and nobody's contents."""

from __future__ import annotations

import gc
import logging
import os
import socket
import subprocess
import sys
import tracemalloc

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import QueuePool

import poolproof
from plugins.harm import message
from plugins.threads import Task
from poolproof import _native
from poolproof.faults import journal as rings
from poolproof.faults.messages import described, unread
from poolproof.pool import evidence
from poolproof.pool.evidence import shown

DRIVERS = ("psycopg2", "psycopg", "pg8000")

pytestmark = pytest.mark.usefixtures("own_journal")


@pytest.fixture(params=DRIVERS)
def engine(request, make_engine, watched):
    return make_engine(
        request.param, watched, poolclass=poolproof.Pool, pool_size=1, max_overflow=0
    )


def only(kind):
    (event,) = [event for event in poolproof.journal() if event.kind == kind]
    return event


def test_long_statements_are_remembered_by_beginning_and_end(engine, watched):
    long = "select " + ", ".join(f"'{'x' * 100}' as c{n}" for n in range(10_000))
    with engine.connect() as connection:
        for _ in range(20):
            connection.exec_driver_sql("select 1").close()
        (record,) = [connection.connection._connection_record]
        try:
            connection.exec_driver_sql(long)
        except sa.exc.DBAPIError:
            connection.rollback()  # more columns than there may be
        kept = record.statements[-1]
        assert len(kept) < 600
        assert kept.startswith("select 'xxx")
        assert kept.endswith("as c9999")


WORD = "geheim4711"


@pytest.mark.parametrize(
    "one",
    [
        "select '{}' from t",
        "select E'it\\'s {}' from t",
        "select e'{} \\\\' from t",
        "select U&'{}' from t",
        "select $${}$$ from t",
        "select $tag${} $$ $tag$ from t",
        "select 1 /* {} ' */ from t",
        "select 1 -- {} '\n from t",
        "/* {} */ select 1 from t",
        "select \"a 'b\", '{}' from t",
        "select '{}",
        "select 1 /* {}",
        "alter role app password '{}'",
    ],
)
def test_a_fingerprint_knows_no_literal_and_no_comment(one):
    told = shown(one.format(WORD))
    assert told == shown(one.format("another"))
    assert told != shown("select 2, 3 from other")
    assert told.split()[0] in {"SELECT", "ALTER"}


def test_numbers_make_no_difference_and_names_do():
    assert shown("select 1.5e10, 0x1F, 1_000") == shown("(select 2, 7, 8").replace(
        shown("(select 2, 7, 8").split()[1], shown("select 2, 7, 8").split()[1]
    )
    assert shown("select t1.a1") != shown("select t2.a1")
    assert shown('select "a 1"') != shown('select "a 2"')
    assert len(shown("x" * 1000)) < 40


def test_what_lies_unread_is_looked_at_without_waiting(engine):
    # Of a silent socket, where an application has set this for its own.
    with engine.connect() as connection:
        connection.execute(sa.text("select 1"))
        dbapi = connection.connection.dbapi_connection
        number = evidence.messages.sockets.descriptor(dbapi)
        blocks = os.get_blocking(number)
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(600)
        try:
            assert Task(unread, dbapi).result() == ()
        finally:
            socket.setdefaulttimeout(before)
        assert os.get_blocking(number) == blocks
        connection.execute(sa.text("select 2"))


def test_under_gevent_too(pg):
    url = pg.url("psycopg2").render_as_string(hide_password=False)
    program = """
from gevent import monkey; monkey.patch_all()
import sys, gevent, sqlalchemy as sa, poolproof
from poolproof.faults.messages import unread
engine = sa.create_engine(sys.argv[1], poolclass=poolproof.Pool)
with engine.connect() as connection:
    connection.execute(sa.text("select 1"))
    with gevent.Timeout(60):
        assert unread(connection.connection.dbapi_connection) == ()
    connection.execute(sa.text("select 2"))
"""
    subprocess.run([sys.executable, "-c", program, url], check=True, timeout=200)


def test_a_descriptor_that_is_none_of_the_connections_is_not_looked_at(
    make_engine, pg, monkeypatch
):
    looked = []
    monkeypatch.setattr(
        evidence.messages, "unread", lambda connection: looked.append(connection) or ()
    )
    engine = make_engine("psycopg2", poolclass=poolproof.Pool)
    connection = engine.connect()
    dbapi = connection.connection.dbapi_connection
    number = dbapi.fileno()
    ours, theirs = socket.socketpair()
    os.dup2(theirs.fileno(), number)
    try:
        connection.invalidate()
        assert only("discard").evidence["reason"] == "foreign"
        assert looked == []
    finally:
        ours.close()
        theirs.close()


def test_an_interruption_while_it_is_noted_still_closes_it(engine, monkeypatch):
    class Interruption(BaseException):
        pass

    def interrupted(*_args):
        raise Interruption

    fairy = engine.raw_connection()
    record = fairy._connection_record
    with monkeypatch.context() as patched:
        patched.setattr(evidence, "discarded", interrupted)
        with pytest.raises(Interruption):
            record.invalidate(OSError("broken"))
    assert record.dbapi_connection is None
    fairy.invalidate()
    assert engine.connect().close() is None


def test_it_is_bounded_in_memory():
    def discard(number):
        rings.note(
            "discard",
            "it came back in the middle of a transaction or of a call",
            pool="app@db",
            reason="in_transaction",
            backend_pid=100_000 + number,
            processes=(os.getpid(),),
            age=float(number),
            rested=number / 3,
            unread=tuple(f"DataRow {number * 16 + n}" for n in range(16)),
            statements=tuple(f"SELECT {number * 16 + n:012}" for n in range(16)),
        )

    logging.getLogger("poolproof.journal").setLevel(logging.CRITICAL)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(1000):
            discard(number)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
        logging.getLogger("poolproof.journal").setLevel(logging.NOTSET)
    assert grown <= 224 << 10
    # The pools of other tests have counted, and left it less room.
    room = max(rings.LEAST_BYTES, rings.TOGETHER - _native.histogram_bytes())
    fewest = 50 * min(1, room / rings.MOST_BYTES)
    assert fewest < len(poolproof.journal()) < 200
    assert poolproof.journal()[-1].evidence["backend_pid"] == 100_999
    rings.note("lease", "x" * (1 << 20))  # the last is kept, whatever its size
    assert len(poolproof.journal()) == 1


# --- what lies unread -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"", ()),
        (b"Z\0\0\0\5I", ("ReadyForQuery 5",)),
        (message(b"E", b"SFATAL\0C57P01\0\0"), ("ErrorResponse 19",)),
        (b"D\0\0\1\0half", ("DataRow 256",)),
        (b"no message of the protocol", ("26 bytes more",)),
        (b"D 4711-0815 of a row", ("20 bytes more",)),  # no head: nothing of it
        (b"Z\0\0\0\5I?", ("ReadyForQuery 5", "1 bytes more")),
        (b"\x17\3\3\0\x20" + bytes(32), ("37 bytes of TLS",)),
        (b"Z\0\0\0\5I" * 20, (*["ReadyForQuery 5"] * 16, "24 bytes more")),
    ],
)
def test_messages_are_named_with_their_lengths(data, names):
    assert described(data) == names


@pytest.mark.parametrize("pool_class", [QueuePool, poolproof.Pool])
def test_a_statement_that_is_no_text_goes_to_the_driver_as_it_is(
    make_engine, pool_class
):
    """A listener may hand psycopg an object of its own."""
    from psycopg import sql

    engine = make_engine("psycopg", poolclass=pool_class)

    @sa.event.listens_for(engine, "before_cursor_execute", retval=True)
    def composed(_connection, _cursor, _statement, parameters, *_):
        return sql.SQL("select {}").format(sql.Literal("a-literal")), parameters

    with engine.connect() as connection:
        assert connection.scalar(sa.text("select 1")) == "a-literal"
        if pool_class is poolproof.Pool:
            entry = connection.connection._connection_record
            assert list(map(evidence.shown, entry.statements))[-1].startswith(
                "COMPOSED"
            )
