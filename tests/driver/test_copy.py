"""COPY in both directions, and what goes wrong in its middle.

Long, because it is one idea: each way of a COPY, and each end of one.
"""

# ruff: noqa: PT012, SIM117 - the block of a COPY is what raises, at its end as well

from __future__ import annotations

import datetime as dt
import decimal
import io
import itertools
import os
import resource
import signal
import threading
import time
import uuid

import psycopg
import pytest

import poolproof.driver as dbapi
from plugins.bytecodes import Interruption

SECONDS = 60


@pytest.fixture
def table(connection):
    """Make a table for two values."""
    connection.execute("create temp table t (n int primary key, name text)")
    connection.commit()
    return "t"


def rows(connection):
    """Return what is in the table."""
    return connection.execute("select n, name from t order by n").fetchall()


# --- bytes, rows, files ---------------------------------------------------------------


def test_bytes_go_to_the_server_in_pieces_that_end_anywhere(connection, table, in_step):
    cursor = connection.cursor()
    data = b"1\tone\n2\t\\N\n3\tthr\xc3\xa9e\n"
    with cursor.copy("copy t from stdin") as copy:
        for byte in data[:9]:
            copy.write(bytes([byte]))
        copy.write(bytearray(data[9:12]))
        copy.write(memoryview(data[12:-5]))
        copy.write(data[-5:].decode())
    assert (cursor.rowcount, cursor.statusmessage) == (3, "COPY 3")
    assert rows(connection) == [(1, "one"), (2, None), (3, "thrée")]
    in_step()


def test_rows_go_to_the_server_whatever_is_in_them(connection, table, other):
    texts = ["", "\\", "\\N", "a\tb\nc\rd\be\ff\vg", "\\.", "é🙂", "'\"", None, "NULL"]
    cursor = connection.cursor()
    with cursor.copy("copy t from stdin") as copy:
        copy.write_rows(enumerate(texts))
        copy.write_row([100, "last"])
    assert rows(connection) == [*enumerate(texts), (100, "last")]


NAIVE = dt.datetime(1999, 12, 31, 23, 59, 59, 1)  # noqa: DTZ001 - without a zone
VALUES = {
    "bool": (True, False),
    "int2": (-(2**15), 2**15 - 1),
    "int4": (-(2**31), 2**31 - 1),
    "int8": (-(2**63), 2**63 - 1),
    "float4": (1.5, -0.25),
    "float8": (0.1, float("inf")),
    "numeric": tuple(
        map(
            decimal.Decimal,
            ("0", "-0.001", "12345678.90", "1E+20", "10000", "0.00010000", "-99.5"),
        )
    ),
    "text": ("a\tb\\", ""),
    "bytea": (b"\x00\xff\\", b""),
    "date": (dt.date(1, 1, 1), dt.date(9999, 12, 31), dt.date(2000, 2, 29)),
    "time": (dt.time(0, 0), dt.time(23, 59, 59, 999999)),
    "timestamp": (NAIVE, NAIVE.replace(year=2000, month=2, day=29)),
    "timestamptz": (
        dt.datetime(2024, 2, 29, 12, tzinfo=dt.timezone(dt.timedelta(hours=-5))),
        dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc),
    ),
    "interval": (dt.timedelta(days=-3, seconds=5, microseconds=7), dt.timedelta(0)),
    "uuid": (uuid.UUID(int=1), uuid.UUID(int=2**128 - 1)),
    "jsonb": (dbapi.Jsonb({"a": [1, None]}),),
    "json": (dbapi.Json("x"),),
}


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
@pytest.mark.parametrize("kind", VALUES)
def test_values_come_back_as_they_went(connection, kind, binary):
    connection.execute("set timezone to 'UTC'")
    connection.execute(f"create temp table v (n int4, v {kind})")
    sent = list(enumerate([*VALUES[kind], None]))
    form = "(format binary)" if binary else ""
    cursor = connection.cursor()
    with cursor.copy(f"copy v from stdin {form}") as copy:
        copy.set_types(["int4", kind])
        copy.write_rows(sent)
    read = connection.execute("select n, v from v order by n").fetchall()
    with cursor.copy(f"copy (select * from v order by n) to stdout {form}") as copy:
        copy.set_types(["integer", kind])
        copied = list(copy.rows())
    assert copied == read
    assert len(read) == cursor.rowcount == len(sent)
    if kind not in {"json", "jsonb"}:
        assert read == sent


def test_arrays_and_adapted_values_go_in_the_text_format(connection):
    connection.execute("create temp table a (a int[], t text[], r int4range)")
    wide = dbapi.Range(1, 5)
    with connection.cursor().copy("copy a from stdin") as copy:
        copy.write_row(([1, None, 3], ["a\tb", '"', None], wide))
    found = connection.execute("select * from a").fetchone()
    assert found == ([1, None, 3], ["a\tb", '"', None], wide)


def test_rows_come_as_texts_unless_their_types_were_named(connection):
    query = "copy (select 1, null, E'a\\tb\\\\c\\n') to stdout"
    with connection.cursor().copy(query) as copy:
        assert list(copy.rows()) == [("1", None, "a\tb\\c\n")]
    with connection.cursor().copy(query) as copy:
        copy.set_types(["int4", "text", "text"])
        assert copy.read_row() == (1, None, "a\tb\\c\n")
        assert copy.read_row() is None
    with connection.cursor().copy(query + " (format binary)") as copy:
        assert list(copy.rows()) == [(b"\0\0\0\1", None, b"a\tb\\c\n")]


def test_bytes_come_a_row_at_a_time_and_then_none(connection, other):
    query = "copy (select generate_series(1, 5)) to stdout"
    with other.cursor().copy(query) as copy:
        theirs = [bytes(piece) for piece in copy]
    cursor = connection.cursor()
    with cursor.copy(query) as copy:
        assert copy.read() == theirs[0]
        assert list(copy) == theirs[1:]
        assert copy.read() == b""
    assert (cursor.rowcount, cursor.statusmessage) == (5, "COPY 5")


@pytest.mark.parametrize("form", ["", "(format binary)", "(format csv, header)"])
def test_what_came_from_one_goes_to_another(connection, table, other, form):
    connection.cursor().executemany(
        "insert into t values (%s, %s)", [(n, f"name\n{n}") for n in range(1000)]
    )
    before = rows(connection)
    with connection.cursor().copy(f"copy t to stdout {form}") as copy:
        data = b"".join(copy)
    connection.execute("truncate t")
    with connection.cursor().copy(f"copy t from stdin {form}") as copy:
        copy.write(data)
    assert rows(connection) == before
    other.execute("create temp table t (n int primary key, name text)")
    with other.cursor().copy(f"copy t from stdin {form}") as copy:
        copy.write(data)
    assert other.execute("select * from t order by n").fetchall() == before


@pytest.mark.parametrize("kind", [io.BytesIO, io.StringIO])
def test_files_for_bytes_and_for_text(connection, table, kind):
    text = "".join(f"{n}\té{n}\n" for n in range(10_000))
    source = kind(text if kind is io.StringIO else text.encode())
    cursor = connection.cursor()
    cursor.copy_expert("copy t from stdin", source, 1000)
    assert cursor.rowcount == 10_000
    target = kind()
    cursor.copy_expert("copy (select * from t order by n) to stdout", target)
    assert target.getvalue() == source.getvalue()


def test_nothing_of_a_great_copy_is_held_in_memory(connection):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line = b"x" * 999 + b"\n"
    connection.execute("create temp table w (t text)")
    with connection.cursor().copy("copy w from stdin") as copy:
        for _ in range(300):
            copy.write(line * 1000)
    with connection.cursor().copy("copy w to stdout") as copy:
        assert sum(map(len, copy)) == 300_000_000
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100 << 10  # KiB, of 300 MB


# --- errors ---------------------------------------------------------------------------


def test_an_exception_in_the_block_keeps_nothing_and_goes_on(
    connection, table, in_step
):
    with (
        pytest.raises(ZeroDivisionError),
        connection.cursor().copy("copy t from stdin") as copy,
    ):
        copy.write_row([1, "one"])
        raise ZeroDivisionError
    assert connection.info.transaction_status == 3
    in_step()
    assert rows(connection) == []


def test_a_servers_error_comes_at_a_later_write_and_the_connection_is_in_step(
    connection, table, in_step
):
    written = itertools.count(1)
    with (
        pytest.raises(dbapi.DataError, match="invalid input syntax"),
        connection.cursor().copy("copy t from stdin") as copy,
    ):
        copy.write(b"no number\tone\n")
        while next(written) < 100_000:
            copy.write(b"7\tseven\n" * 10_000)
    assert 1 < next(written) < 100_000
    in_step()
    assert rows(connection) == []


def test_a_servers_error_at_the_end_comes_with_the_end(connection, table, in_step):
    with pytest.raises(dbapi.IntegrityError) as caught:
        with connection.cursor().copy("copy t from stdin") as copy:
            copy.write_rows([(1, "a"), (1, "b")])
        pytest.fail("not reached")
    assert caught.value.sqlstate == "23505"
    assert caught.value.outcome == "not_done"
    in_step()


def test_after_an_error_its_copy_takes_nothing_more(connection, table, in_step):
    with pytest.raises(dbapi.ProgrammingError, match="come to its end"):
        with connection.cursor().copy("copy t from stdin") as copy:
            with pytest.raises(dbapi.DataError):
                while True:
                    copy.write(b"x\n" * 100_000)
            copy.write(b"1\tone\n")
    in_step()


def test_an_error_of_the_source_is_raised_where_it_is_met(connection, in_step):
    query = "copy (select 1 / (1000 - n) from generate_series(1, 2000) n) to stdout"
    with pytest.raises(dbapi.DataError, match="division by zero"):
        with connection.cursor().copy(query) as copy:
            for _ in copy:
                pass
    in_step()


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("copy nowhere from stdin", dbapi.ProgrammingError),
        ("copy nowhere to stdout", dbapi.ProgrammingError),
        ("copy t from stdin (format strange)", dbapi.DatabaseError),
        ("copy t from stdin; select 1", dbapi.ProgrammingError),
    ],
)
def test_a_copy_that_the_server_refuses(connection, table, in_step, statement, kind):
    with pytest.raises(kind), connection.cursor().copy(statement):
        pytest.fail("not reached")
    in_step()


@pytest.mark.parametrize(
    "statement", ["select 1", "copy t from '/x'", "", "select 'copy t from stdin'"]
)
def test_what_is_no_copy_with_the_client_is_refused_before_it_is_sent(
    connection, table, in_step, statement
):
    with pytest.raises(dbapi.ProgrammingError, match="COPY"):
        with connection.cursor().copy(statement):
            pytest.fail("not reached")
    assert connection.info.transaction_status == 0
    in_step()


def test_a_copy_that_needs_no_client_after_all_is_refused(connection, in_step):
    with pytest.raises(dbapi.ProgrammingError, match="execute"):
        with connection.cursor().copy("copy (select 1) to program 'cat # STDOUT'"):
            pytest.fail("not reached")
    in_step()


def test_parameters_are_refused(connection):
    with pytest.raises(dbapi.ProgrammingError, match="no parameters"):
        connection.cursor().copy("copy t from stdin", [1])


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ((1,), dbapi.DataError),
        ((1, "a", 2), dbapi.DataError),
        ((1, object()), dbapi.ProgrammingError),
        ((1, "a\0b"), dbapi.DataError),
        ("ab", dbapi.ProgrammingError),
        (7, dbapi.ProgrammingError),
    ],
)
@pytest.mark.parametrize("form", ["", "(format binary)"])
def test_a_row_that_does_not_fit_leaves_the_copy_as_it_was(
    connection, table, row, kind, form
):
    with connection.cursor().copy(f"copy t from stdin {form}") as copy:
        copy.set_types(["int4", "text"])
        copy.write_row((1, "a"))
        with pytest.raises(kind):
            copy.write_row(row)
        copy.write_row((2, "b"))
    assert rows(connection) == [(1, "a"), (2, "b")]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int2", 2**15),
        ("int4", "1"),
        ("bool", 1),
        ("timestamp", dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)),
        ("timestamptz", NAIVE),
        ("uuid", "00000000-0000-0000-0000-000000000000"),
        ("numeric", 1.5),
    ],
)
def test_a_value_of_another_type_is_refused_in_the_binary_format(
    connection, in_step, kind, value
):
    connection.execute(f"create temp table v (v {kind})")
    with pytest.raises(dbapi.DataError, match="cannot be written as"):
        with connection.cursor().copy("copy v from stdin (format binary)") as copy:
            copy.set_types([kind])
            copy.write_row([value])
    in_step()


def test_a_row_waits_for_whoever_has_the_connection(connection, table):
    with connection.cursor().copy("copy t from stdin") as copy:
        copy.write_row((1, "a"))
        writer = threading.Thread(target=copy.write_row, args=((2, "b"),))
        with connection.lock:
            writer.start()
            writer.join(0.1)
            assert writer.is_alive()
        writer.join(SECONDS)
    assert rows(connection) == [(1, "a"), (2, "b")]


def test_a_row_whose_adapter_raises_is_left_out(connection, table):
    class Own:
        pass

    def dump(value):
        raise LookupError(value)

    connection.own_adapters().register(Own, dump)
    with connection.cursor().copy("copy t from stdin") as copy:
        copy.write_row((1, "a"))
        with pytest.raises(LookupError):
            copy.write_row((2, Own()))
        copy.write_row((3, "c"))
    assert rows(connection) == [(1, "a"), (3, "c")]


def test_rows_one_by_one_may_be_many(connection, table):
    with connection.cursor().copy("copy t from stdin") as copy:
        for number in range(20_000):
            copy.write_row((number, f"row {number}"))
    found = connection.execute("select count(*), sum(n), max(length(name)) from t")
    assert found.fetchone() == (20_000, 199_990_000, 9)


def test_rows_of_the_binary_format_need_types_that_are_known(connection, table):
    with connection.cursor().copy("copy t from stdin (format binary)") as copy:
        with pytest.raises(dbapi.ProgrammingError, match="set_types"):
            copy.write_row((1, "a"))
        copy.set_types(["int4"])
        with pytest.raises(dbapi.ProgrammingError, match="2 columns"):
            copy.write_row((1, "a"))
        with pytest.raises(dbapi.ProgrammingError, match="no type 'thing'"):
            copy.set_types(["int4", "thing"])
        copy.set_types(["int4", "point"])
        with pytest.raises(dbapi.NotSupportedError, match="text format"):
            copy.write_row((1, "a"))
        copy.set_types(["int4", "text"])
        copy.write_row((1, "a"))
    assert rows(connection) == [(1, "a")]


def test_rows_of_another_format_are_refused(connection):
    query = "copy (values (1, 2), (3, 4)) to stdout (format csv)"
    with connection.cursor().copy(query) as copy:
        with pytest.raises(dbapi.DataError, match="CSV"):
            copy.read_row()
        assert copy.read() == b"3,4\n"


def test_directions_are_not_mistaken(connection, table):
    with connection.cursor().copy("copy t from stdin") as copy:
        for read in (copy.read, copy.read_row, lambda: list(copy.rows())):
            with pytest.raises(dbapi.ProgrammingError, match="goes to the server"):
                read()
    with connection.cursor().copy("copy t to stdout") as copy:
        for write in (copy.write, copy.write_row):
            with pytest.raises(dbapi.ProgrammingError, match="comes from the server"):
                write(b"")


# --- while it is open, and behind it --------------------------------------------------


def test_a_statement_while_a_copy_is_open_is_refused(connection, table, in_step):
    other = connection.cursor()
    with connection.cursor().copy("copy t from stdin") as copy:
        copy.write_row((1, "a"))
        for use in (
            lambda: other.execute("select 1"),
            lambda: other.executemany("select %s", [(1,)]),
            lambda: other.copy("copy t to stdout").__enter__(),
            connection.commit,
            connection.rollback,
            connection.ping,
        ):
            with pytest.raises(dbapi.ProgrammingError, match="a COPY is open"):
                use()
        copy.write_row((2, "b"))
    assert rows(connection) == [(1, "a"), (2, "b")]
    in_step()


def test_use_behind_the_end(connection, table):
    with connection.cursor().copy("copy t from stdin") as copy:
        copy.write_row((1, "a"))
    with pytest.raises(dbapi.InterfaceError, match="its end"):
        copy.write_row((2, "b"))
    with pytest.raises(dbapi.ProgrammingError, match="begun before"), copy:
        pytest.fail("not reached")
    unborn = connection.cursor().copy("copy t from stdin")
    with pytest.raises(dbapi.ProgrammingError, match="has not begun"):
        unborn.write(b"")
    cursor = connection.cursor()
    cursor.close()
    with pytest.raises(dbapi.InterfaceError):
        cursor.copy("copy t from stdin")


def test_closing_the_connection_in_the_middle(connecting, table, looking):
    connection = connecting()
    connection.execute("create temp table u (n int)")
    with pytest.raises(dbapi.InterfaceError, match="closed"):
        with connection.cursor().copy("copy u from stdin") as copy:
            connection.close()
            copy.write(b"1\n")
    assert connection.closed


@pytest.mark.parametrize("count", [10, 10_000_000])
def test_leaving_early_what_comes_from_the_server(connecting, count):
    connection = connecting(autocommit=True)
    query = f"copy (select n from generate_series(1, {count}) n) to stdout"
    begun = time.monotonic()
    connection.execute(f"select count(*) from generate_series(1, {count})")
    control = time.monotonic() - begun
    with connection.cursor().copy(query) as copy:
        assert copy.read() == b"1\n"
        begun = time.monotonic()
    assert time.monotonic() - begun < max(5.0, 2 * control)
    for number in (41, 42):
        assert connection.execute("select %s", [number]).fetchone() == (number,)


def test_leaving_early_by_an_exception_or_a_generators_end(connecting):
    connection = connecting(autocommit=True)
    query = "copy (select n from generate_series(1, 10000000) n) to stdout"

    def numbers():
        with connection.cursor().copy(query) as copy:
            yield from copy.rows()

    with pytest.raises(ZeroDivisionError), connection.cursor().copy(query) as copy:
        copy.read()
        raise ZeroDivisionError
    assert connection.execute("select 41").fetchone() == (41,)
    found = numbers()
    assert next(found) == ("1",)
    found.close()
    assert connection.execute("select 42").fetchone() == (42,)


def test_execute_of_a_copy_names_the_way(connection, in_step):
    for statement in ("copy (select 1) to stdout", "copy pg_class from stdin"):
        with pytest.raises(dbapi.NotSupportedError, match=r"cursor\.copy\(\)"):
            connection.execute(statement)
    in_step()


def test_autocommit_commits_at_the_end_and_not_before(connecting, looking):
    looking.rows("drop table if exists copied")
    looking.rows("create table copied (n int)")
    connection = connecting(autocommit=True)
    with connection.cursor().copy("copy copied from stdin") as copy:
        copy.write(b"1\n")
        assert looking.value("select count(*) from copied") == 0
    assert looking.value("select count(*) from copied") == 1
    looking.rows("drop table copied")


def test_notices_come_through_while_it_is_written(connection, looking):
    heard = []
    connection.add_notice_handler(lambda said: heard.append(said.message_primary))
    connection.execute(
        "create function pg_temp.shout() returns trigger language plpgsql as"
        " $$ begin raise notice '%', repeat('x', 1000); return new; end $$"
    )
    connection.execute("create temp table loud (n int)")
    connection.execute(
        "create trigger shout before insert on loud for each row"
        " execute function pg_temp.shout()"
    )
    # Many times what both sockets hold in each direction: who does not read while it
    # writes waits for ever.
    with connection.cursor().copy("copy loud from stdin") as copy:
        copy.write_rows((n,) for n in range(50_000))
    assert heard
    assert connection.execute("select count(*) from loud").fetchone() == (50_000,)


# --- losses and interruptions ---------------------------------------------------------


def test_the_servers_end_in_the_middle(connection, table, looking):
    pid = connection.info.backend_pid
    with pytest.raises(dbapi.OperationalError) as caught:
        with connection.cursor().copy("copy t from stdin") as copy:
            copy.write(b"1\tone\n" * 10_000)
            looking.rows(f"select pg_terminate_backend({pid})")
            while True:
                copy.write(b"2\ttwo\n" * 10_000)
    assert caught.value.outcome == "not_done"
    assert connection.closed


@pytest.mark.parametrize("direction", ["in", "out"])
def test_an_interruption_costs_the_connection_alone(connecting, looking, direction):
    connection = connecting()
    pid = connection.info.backend_pid
    connection.execute("create temp table slow (n int)")
    connection.execute(
        "create function pg_temp.wait() returns trigger language plpgsql as"
        " $$ begin perform pg_sleep(60); return new; end $$"
    )
    connection.execute(
        "create trigger wait before insert on slow for each row"
        " execute function pg_temp.wait()"
    )
    statement = {
        "in": "copy slow from stdin",
        "out": "copy (select 1, pg_sleep(60)) to stdout",
    }[direction]

    class Soft(BaseException):
        """As a soft time limit's."""

    def ring(*_args):
        raise Soft

    before = signal.signal(signal.SIGUSR1, ring)
    alarm = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGUSR1))
    begun = time.monotonic()
    alarm.start()
    try:
        with pytest.raises(Soft), connection.cursor().copy(statement) as copy:
            while direction == "out":
                copy.read()
            while True:
                copy.write(b"1\n" * 100_000)
    finally:
        alarm.join()
        signal.signal(signal.SIGUSR1, before)
    assert time.monotonic() - begun < 30
    assert connection.closed
    until = time.monotonic() + SECONDS
    alive = "select count(*) from pg_stat_activity where pid = %s"
    while looking.value(alive, pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not looking.value(alive, pid)


def test_an_interruption_between_two_writes_costs_the_connection(connecting):
    connection = connecting()
    connection.execute("create temp table t (n int, name text)")
    with (
        pytest.raises(KeyboardInterrupt),
        connection.cursor().copy("copy t from stdin") as copy,
    ):
        copy.write_row((1, "a"))
        raise KeyboardInterrupt
    assert connection.closed


@pytest.mark.fork
def test_a_child_cannot_go_on_with_its_parents_copy(connection, table, in_step):
    with connection.cursor().copy("copy t from stdin") as copy:
        copy.write_row((1, "a"))
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            signal.alarm(SECONDS)
            try:
                copy.write_row((2, "child"))
            except dbapi.InterfaceError as error:
                copy.__exit__(type(error), error, None)
                connection.close()
                os.write(write, b"refused")
            os._exit(0)
        os.close(write)
        assert os.read(read, 100) == b"refused"
        os.close(read)
        os.waitpid(pid, 0)
        copy.write_row((3, "c"))
    assert rows(connection) == [(1, "a"), (3, "c")]
    in_step()


def test_threads_take_turns_at_one_copy(connection, table):
    with connection.cursor().copy("copy t from stdin") as copy:

        def write(base):
            for n in range(500):
                copy.write_row((base + n, "x" * 100))

        threads = [threading.Thread(target=write, args=(k * 1000,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(rows(connection)) == 2000


def test_a_collected_copy_costs_its_connection(connection, table):
    copy = connection.cursor().copy("copy t from stdin")
    copy.__enter__()
    copy.write_row((1, "a"))
    del copy
    assert connection.closed
    with pytest.raises(dbapi.OperationalError, match="closed"):
        connection.execute("select 1")


@pytest.mark.parametrize("statement", ["copy t from stdin", "copy t to stdout"])
def test_an_interruption_at_any_bytecode_leaves_no_copy_open(connecting, statement):
    """What the connection answers afterwards is right, or it is closed."""

    def story():
        with connection.cursor().copy(statement) as copy:
            if copy.is_to_server:
                copy.write_row((1, "a"))
            else:
                [*copy.rows()]

    connection, at, closed = None, 0, 0
    while True:
        if connection is None or connection.closed:
            connection = connecting()
            connection.execute("create temp table t (n int, name text)")
            connection.commit()
        at += 1
        interruption = Interruption(at, ("driver/copy.py", "driver/session.py"))
        interruption.run(story)
        if not connection.closed:
            connection.rollback()
            assert connection.execute("select %s", [at]).fetchall() == [(at,)], (
                interruption.place
            )
            connection.rollback()
        closed += connection.closed
        if interruption.count < at:
            break
    assert 0 < closed < at


@pytest.mark.parametrize("form", ["", "(format binary)"])
def test_as_psycopg_reads_it(connection, other, form):
    query = (
        f"copy (select n, 'x' || n from generate_series(1, 1000) n) to stdout {form}"
    )
    with other.cursor().copy(query) as copy:
        copy.set_types(["int4", "text"])
        theirs = list(copy.rows())
    with connection.cursor().copy(query) as copy:
        copy.set_types(["int4", "text"])
        assert list(copy.rows()) == theirs
    assert isinstance(other, psycopg.Connection)
