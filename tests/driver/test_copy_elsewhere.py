"""COPY under TLS, behind a pooler, under a hub, and within a deadline.

What a COPY is stands in `test_copy`; here is what lies between it and the server.
"""

# ruff: noqa: PT012, SIM117 - the block of a COPY is what raises, at its end as well

from __future__ import annotations

import contextlib
import json
import subprocess
import sys

import pytest
from sqlalchemy import create_engine, exc

import poolproof
import poolproof.driver as dbapi
from plugins.threads import eventually
from plugins.wire import Stopwatch

ROWS = 20_000
ENDLESS = "copy (select n from generate_series(1, 10000000) n) to stdout"


def copy_there_and_back(connection):
    """Copy rows in and out in each format; say whether they are the same."""
    connection.execute("drop table if exists copied_elsewhere")
    connection.execute("create table copied_elsewhere (n int4, name text)")
    rows = [(number, f"näme {number}\t" * 5) for number in range(ROWS)]
    cursor = connection.cursor()
    for form in ("", "(format binary)"):
        with cursor.copy(f"copy copied_elsewhere from stdin {form}") as copy:
            copy.set_types(["int4", "text"])
            copy.write_rows(rows)
        assert cursor.rowcount == ROWS
        query = f"copy (select * from copied_elsewhere order by n) to stdout {form}"
        with cursor.copy(query) as copy:
            copy.set_types(["int4", "text"])
            assert list(copy.rows()) == rows
        connection.execute("truncate copied_elsewhere")
    connection.execute("drop table copied_elsewhere")
    connection.commit()


def leave_and_fail(connection):
    """Leave a COPY early, which the server is told beside it, and have others fail."""
    with connection.cursor().copy(ENDLESS) as copy:
        assert copy.read() == b"1\n"
    connection.rollback()
    connection.execute("create temp table failing (n int)")
    with pytest.raises(dbapi.DataError):
        with connection.cursor().copy("copy failing from stdin") as copy:
            for _ in range(1000):
                copy.write(b"no number\n" * 1000)
    connection.rollback()
    connection.execute("create temp table failing (n int)")
    with pytest.raises(ZeroDivisionError):
        with connection.cursor().copy("copy failing from stdin") as copy:
            copy.write(b"1\n")
            raise ZeroDivisionError
    connection.rollback()
    for number in (41, 42):
        assert connection.execute("select %s", [number]).fetchone() == (number,)
    connection.rollback()


def refuse_statements(connection):
    """Ask for something while a COPY is open."""
    connection.execute("create temp table refusing (n int)")
    with connection.cursor().copy("copy refusing from stdin") as copy:
        copy.write_row((1,))
        with pytest.raises(dbapi.ProgrammingError, match="a COPY is open"):
            connection.execute("select 1")
        copy.write_row((2,))
    found = connection.execute("select count(*) from refusing").fetchone()
    assert found == (2,)
    connection.rollback()


EACH = [copy_there_and_back, leave_and_fail, refuse_statements]


def rendered(url):
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.mark.parametrize("use", EACH)
def test_under_tls(debian_pg, use):
    dsn = rendered(debian_pg.url("psycopg2"))
    with contextlib.closing(dbapi.connect(dsn, sslmode="require")) as connection:
        assert connection.info.tls
        use(connection)


@pytest.mark.parametrize("use", EACH)
@pytest.mark.parametrize("program", ["pooler", "telling_pooler"])
def test_behind_a_pooler(request, program, use):
    start = request.getfixturevalue(program)
    url = start(pool_mode="transaction", default_pool_size=2, max_client_conn=20).url
    with contextlib.closing(dbapi.connect(rendered(url))) as connection:
        use(connection)
        use(connection)


# Four greenlets copy beside each other; a fifth is killed in the middle of one.
PROGRAM = """
from gevent import monkey
monkey.patch_all()
import gevent, json, sys, time
import poolproof.driver

dsn = sys.argv[1]
connections = [poolproof.driver.connect(dsn, autocommit=True) for _ in range(5)]
doomed = connections.pop()
turns = []


def copy(connection):
    cursor = connection.cursor()
    cursor.execute("create temp table t (n int, name text)")
    with cursor.copy("copy t from stdin") as copy:
        for number in range(20):
            copy.write_rows((number, "x" * 1000) for _ in range(200))
    # More than the server gathers, so that each row is waited for.
    slow = "select repeat('x', 100000), pg_sleep(0.02) from generate_series(1, 10)"
    with cursor.copy(f"copy ({slow}) to stdout") as copy:
        for _ in copy:
            turns.append(connection.info.backend_pid)
    return cursor.execute("select count(*) from t").fetchone()[0]


def endless():
    query = "select n, pg_sleep(0.01) from generate_series(1, 100000) n"
    with doomed.cursor().copy(f"copy ({query}) to stdout") as copy:
        for _ in copy:
            reading.set()


reading = gevent.event.Event()
killed = gevent.spawn(endless)
counts = [one.get() for one in [gevent.spawn(copy, each) for each in connections]]
changes = sum(one != other for one, other in zip(turns, turns[1:]))
reading.wait()
begun = time.monotonic()
killed.kill()
took = time.monotonic() - begun
alive = [one.execute("select 42").fetchone() == (42,) for one in connections]
print(json.dumps([counts, changes, took, doomed.closed, alive]))
"""


def test_under_gevent(dsn, looking):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, dsn],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    counts, changes, took, closed, alive = json.loads(done.stdout)
    assert counts == [4000] * 4
    assert changes > 4  # one after the other there would be three
    assert took < 60  # and not what is left of its thousand seconds
    assert closed
    assert all(alive)
    query = (
        "select count(*) from pg_stat_activity "
        "where state = 'active' and left(query, 20) = 'copy (select n, pg_s'"
    )
    eventually(lambda: looking.value(query) == 0)


@pytest.mark.parametrize(
    "work",
    [
        # The server says nothing for ten minutes; it takes nothing for hours.
        lambda cursor: list(cursor.copy_out("copy (select pg_sleep(600)) to stdout")),
        lambda cursor: cursor.copy_in("copy stuck from stdin"),
    ],
    ids=["out", "in"],
)
def test_within_a_deadline(dsn, looking, work):
    url = dsn.replace("postgresql://", "postgresql+poolproof://")
    engine = create_engine(url, poolclass=poolproof.Pool, end_stranded_backends=True)

    class Copying:
        def __init__(self, cursor):
            self.cursor = cursor

        def copy_out(self, statement):
            with self.cursor.copy(statement) as copy:
                yield from copy

        def copy_in(self, statement):
            with self.cursor.copy(statement) as copy:
                while True:
                    copy.write(b"1\n" * 100_000)

    looking.rows("drop table if exists stuck")
    looking.rows("create table stuck (n int)")
    # What is written waits for a second: for each row.
    looking.rows(
        "create or replace function slow() returns trigger language plpgsql as "
        "$$begin perform pg_sleep(1); return new; end$$"
    )
    looking.rows(
        "create trigger slow before insert on stuck for each row "
        "execute function slow()"
    )
    try:
        with Stopwatch() as watch, pytest.raises((exc.DBAPIError, dbapi.Error)):
            with poolproof.deadline(0.5), engine.connect() as connection:
                work(Copying(connection.connection.dbapi_connection.cursor()))
        assert 0.5 <= watch.seconds < 30
        with engine.connect() as connection:
            assert connection.exec_driver_sql("select 42").scalar() == 42
        assert engine.pool.stats().discarded
        query = "select count(*) from pg_stat_activity where left(query, 4) = 'copy'"
        eventually(lambda: looking.value(query + " and state = 'active'") == 0)
    finally:
        engine.dispose()
        looking.rows(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where left(query, 4) = 'copy' and pid <> pg_backend_pid()"
        )
        looking.rows("drop table stuck")
