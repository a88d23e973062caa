"""What a statement gives, and where the session stands after it."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import os
import threading
import uuid

import pytest

from plugins.threads import Task, eventually
from poolproof._native import Typed, WireError

UTC = dt.timezone.utc
MOMENT = dt.datetime(2026, 11, 30, 20, 41, 52, 395605, tzinfo=UTC)


def refused(action, *arguments, **words) -> WireError:
    with pytest.raises(WireError) as caught:
        action(*arguments, **words)
    return caught.value


def test_a_statement_gives_columns_rows_and_tag(wire):
    answer = wire.execute("select 1 as one, 'x'::varchar(7) as two")
    assert answer.rows == [(1, "x")]
    assert (answer.tag, answer.count) == ("SELECT 1", 1)
    one, two = answer.columns
    assert (one.name, one.oid, one.size, one.modifier) == ("one", 23, 4, -1)
    assert (two.name, two.oid, two.size, two.modifier) == ("two", 1043, -1, 11)
    assert wire.status == "I"


@pytest.mark.parametrize(
    ("value", "oid"),
    [
        (True, 16),
        (-5, 21),
        (70_000, 23),
        (-(2**40), 20),
        (1.5e300, 701),
        (float("inf"), 701),
        (decimal.Decimal("1.2500"), 1700),
        (b"\x00\xff'\\", 17),
        (bytearray(b"ab"), 17),
        (MOMENT, 1184),
        (MOMENT.replace(tzinfo=None), 1114),
        (MOMENT.date(), 1082),
        (dt.date(1, 1, 1), 1082),
        (MOMENT.time(), 1083),
        (MOMENT.timetz(), 1266),
        (dt.timedelta(-3, 5, 7), 1186),
        (dt.timedelta(10_000, 86_399, 999_999), 1186),
        (uuid.UUID(int=2**127 + 1), 2950),
        ([1, None, 70_000], 1007),
        ([[True, False], [None, True]], 1000),
        ([MOMENT, None], 1185),
        ([decimal.Decimal("1.50"), 1], 1231),
        ([b'\x00{}"\\,', b""], 1001),
    ],
    ids=str,
)
def test_a_value_goes_there_and_back_with_its_type(wire, value, oid):
    answer = wire.execute("select $1", [value])
    assert answer.columns[0].oid == oid
    [(back,)] = answer.rows
    assert back == value or repr(back) == repr(value)


def test_a_str_has_the_type_that_the_statement_needs(wire):
    answer = wire.execute(
        "select $1::text, $2::int, $3::jsonb, $4::text[]",
        ["ü \\ ' 𝄞", "7", '{"a": 1}', [None, "NULL", "null", 'a"b\\c,{}', "", " "]],
    )
    assert answer.rows == [
        ("ü \\ ' 𝄞", 7, '{"a": 1}', [None, "NULL", "null", 'a"b\\c,{}', "", " "])
    ]


def test_what_is_not_known_is_adapted_and_loaded_by_the_caller(wire):
    class Point:
        pass

    def adapt(value):
        return Typed(600, b"(1,2)") if isinstance(value, Point) else value

    answer = wire.execute(
        "select $1, $2::text, '{\"a\": [1]}'::json, '{\"{}\"}'::json[]",
        [Point(), "x"],
        adapt=adapt,
        loaders={114: json.loads},
    )
    assert answer.rows == [("(1,2)", "x", {"a": [1]}, [{}])]
    error = refused(wire.execute, "select $1", [Point()])
    assert error.kind == "data"
    assert "Point" in str(error)
    assert wire.execute("select 1").rows == [(1,)]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("'1 year 2 mons -3 days -04:05:06.5'::interval", "421 days, 19:54:53.500000"),
        ("'{{1,2},{3,NULL}}'::int[]", "[[1, 2], [3, None]]"),
        ("'[5:6]={1,2}'::int[]", "[1, 2]"),
        ("'NaN'::numeric", "NaN"),
        ("'a'::\"char\"", "a"),
        ("18446744073709551615::text::xid8", "18446744073709551615"),
        ("'int4range'::regtype", "int4range"),
        ("int4range(1,5)", "[1,5)"),
        ("'10.0.0.0/8'::inet", "10.0.0.0/8"),
    ],
)
def test_types_are_read_as_they_are_written(wire, expression, expected):
    [(value,)] = wire.execute(f"select {expression}").rows
    assert str(value) == expected


@pytest.mark.parametrize(
    "expression",
    [
        "'infinity'::date",
        "'-infinity'::timestamptz",
        "'0044-03-15 BC'::date",
        "'10000-01-01'::timestamp",
        "'24:00'::time",
        "interval '3000000 years'",
    ],
)
def test_what_python_cannot_hold_is_an_error_after_which_all_goes_on(wire, expression):
    statement = f"select g, {expression} from generate_series(1, 500) g"
    error = refused(wire.execute, statement)
    assert (error.kind, error.lost) == ("data", False)
    assert wire.execute("select 2").rows == [(2,)]


@pytest.mark.parametrize(
    "value", ["a\0b", "\ud800", [["a\0"]], object(), "tuple", dt.time.max]
)
def test_what_cannot_be_sent_is_not_sent(wire, value):
    if value == dt.time.max:
        zone = pytest.importorskip("zoneinfo").ZoneInfo("Europe/Berlin")
        value = value.replace(tzinfo=zone)
    if value == "tuple":
        value = (1, 2)
    error = refused(wire.execute, "select $1::text", [value], begin="BEGIN")
    assert (error.kind, error.outcome, wire.status) == ("data", "not done", "I")


def test_a_transaction_begins_with_its_first_statement(wire, table, observer):
    wire.execute(f"insert into {table} values ($1)", [1], begin="BEGIN")
    assert wire.status == "T"
    wire.execute(f"insert into {table} values (2)", begin="BEGIN")
    assert observer.value(f"select count(*) from {table}") == 0
    wire.commit()
    assert wire.status == "I"
    assert observer.value(f"select count(*) from {table}") == 2
    wire.execute(f"delete from {table}", begin="BEGIN")
    wire.rollback()
    assert observer.value(f"select count(*) from {table}") == 2


def test_a_begin_that_fails_runs_nothing(wire, table, observer):
    for parameters in ([1], None):
        values = "$1" if parameters else "1"
        error = refused(
            wire.execute,
            f"insert into {table} values ({values})",
            parameters,
            begin="BEGIN ISOLATION LEVEL nonsense",
        )
        assert (error.kind, error.sqlstate) == ("server", "42601")
    several = f"insert into {table} values (1); insert into {table} values (2)"
    assert refused(wire.execute, several, begin="BEGIN nonsense").sqlstate == "42601"
    assert wire.status == "I"
    assert observer.value(f"select count(*) from {table}") == 0


def test_an_error_of_the_server_comes_with_its_fields(wire, table):
    wire.execute(f"alter table {table} add constraint own check (n < 5)")
    error = refused(
        wire.execute, f"insert into {table} values ($1)", [7], begin="BEGIN"
    )
    assert error.kind == "server"
    assert error.sqlstate == error.fields["C"] == "23514"
    assert error.fields["n"] == "own"
    assert error.message == error.fields["M"]
    assert wire.status == "E"
    error = refused(wire.commit)
    assert error.kind == "rolled_back"
    assert wire.status == "I"


def test_several_statements_give_the_answer_of_the_last(wire):
    assert wire.execute("select 1; select 2, 3").rows == [(2, 3)]
    answer = wire.execute("select 1; set application_name to 'poolproof-tests'")
    assert (answer.rows, answer.columns, answer.tag) == (None, None, "SET")
    answer = wire.execute(
        "create temp table s (n int); insert into s values (1); select n from s",
        begin="BEGIN",
    )
    assert (answer.rows, wire.status) == ([(1,)], "T")
    assert wire.execute(" ; ").tag == ""


def test_many_rows_are_one_pipeline_that_is_done_or_not(wire, table, observer):
    wire.execute(f"create unique index on {table} (n)")
    insert = f"insert into {table} values ($1) returning n"
    answer = wire.execute_many(insert, [[n] for n in range(5000)])
    assert answer.count == 5000
    rows = [[n] for n in (*range(6000, 7000), 6500, *range(7000, 8000))]
    assert refused(wire.execute_many, insert, rows).sqlstate == "23505"
    assert wire.status == "I"
    assert observer.value(f"select count(*) from {table}") == 5000
    assert wire.execute_many(insert, iter([])).count == 0
    # Of types that differ from row to row.
    answer = wire.execute_many(insert, [[-1], [-70_000], ["-3"], [-4]], begin="BEGIN")
    assert (answer.count, wire.status) == (4, "T")
    wire.rollback()


def test_more_than_fits_into_the_systems_buffers_goes_both_ways(wire):
    text = "x" * 8_000_000
    assert wire.execute("select $1::text, $1::text", [text]).rows == [(text, text)]
    rows = [[f"{n} " + "y" * 5_000] for n in range(2_000)]
    answer = wire.execute_many("select $1::text || $1::text", rows)
    assert answer.count == 2_000


def test_copy_is_refused_and_leaves_the_connection_in_step(wire, table):
    for statement in (
        f"copy {table} from stdin",
        f"copy {table} to stdout",
        f"select 1; copy {table} from stdin",
        f"select 1; copy {table} to stdout",
    ):
        error = refused(wire.execute, statement)
        assert (error.kind, wire.status) == ("unsupported", "I")
    error = refused(wire.execute, f"/* */ copy {table} from stdin", [], begin="BEGIN")
    assert error.kind == "unsupported"
    assert wire.execute("select 1").rows == [(1,)]


def test_notices_and_notifications_are_kept_until_they_are_taken(wire, make_wire):
    wire.execute("do $$ begin raise notice 'said'; end $$")
    [notice] = wire.notices()
    assert (notice["M"], notice["V"]) == ("said", "NOTICE")
    assert wire.notices() == []
    wire.execute("listen heard")
    assert wire.wait_notification(0.001) is False
    other = make_wire()
    other.execute("notify heard, 'loud'")
    assert wire.wait_notification(20.0) is True
    assert wire.notifications() == [(other.pid, "heard", "loud")]


def test_a_ping_needs_no_statement(wire):
    wire.ping()
    assert wire.status == "I"
    wire.execute("select 1", begin="BEGIN")
    wire.ping()
    assert wire.status == "T"


def test_another_thread_can_cancel_what_is_under_way(wire, observer):
    task = Task(wire.execute, "select pg_sleep(600)")
    asleep = "select 1 from pg_stat_activity where pid = %s and wait_event = 'PgSleep'"
    eventually(lambda: observer.rows(asleep, wire.pid), what="a statement that sleeps")
    assert wire.status == "A"
    assert refused(wire.execute, "select 1").kind == "busy"
    wire.cancel()
    error = refused(task.result)
    assert (error.kind, error.sqlstate, error.lost) == ("server", "57014", False)
    assert wire.execute("select 1").rows == [(1,)]


def test_closing_ends_what_is_under_way(wire, observer):
    task = Task(wire.execute, "select pg_sleep(600)")
    asleep = "select 1 from pg_stat_activity where pid = %s and wait_event = 'PgSleep'"
    eventually(lambda: observer.rows(asleep, wire.pid), what="a statement that sleeps")
    wire.close()
    assert refused(task.result).kind == "closed"
    assert (wire.closed, wire.status, wire.fileno()) == (True, "X", -1)
    wire.close()
    assert refused(wire.execute, "select 1").kind == "closed"
    observer.end(wire.pid)


def test_a_session_that_was_ended_says_why(wire, observer):
    observer.terminate(wire.pid)
    error = refused(wire.execute, "select 1")
    assert (error.kind, error.sqlstate, error.lost) == ("closed", "57P01", True)
    assert error.outcome == "not done"
    assert wire.closed


@pytest.mark.parametrize(
    ("begin", "statement", "outcome"),
    [
        ("BEGIN", "select pg_sleep(600)", "not done"),
        (None, "select pg_sleep(600)", "unknown"),
    ],
)
def test_what_became_of_a_request_is_known_as_far_as_it_can_be(
    wire, observer, begin, statement, outcome
):
    task = Task(lambda: wire.execute(statement, begin=begin))
    asleep = "select 1 from pg_stat_activity where pid = %s and wait_event = 'PgSleep'"
    eventually(lambda: observer.rows(asleep, wire.pid), what="a statement that sleeps")
    observer.terminate(wire.pid)
    error = refused(task.result)
    assert (error.kind, error.outcome) == ("closed", outcome)


def test_threads_never_interleave(wire):
    def ask(thread):
        served = 0
        for n in range(300):
            try:
                assert wire.execute("select $1::text", [f"{thread} {n}"]).rows == [
                    (f"{thread} {n}",)
                ]
            except WireError as error:
                assert error.kind == "busy"  # noqa: PT017 - the others are served
            else:
                served += 1
        return served

    tasks = [Task(ask, thread) for thread in range(4)]
    assert sum(task.result() for task in tasks) > 0
    assert threading.active_count() < 20


def test_what_it_knows_of_its_connection(wire, pg):
    assert (wire.host, wire.port, wire.tls) == ("127.0.0.1", pg.port, None)
    assert (wire.user, wire.database) == ("postgres", "postgres")
    assert wire.pid == wire.execute("select pg_backend_pid()").rows[0][0]
    assert wire.parameter("client_encoding") == "UTF8"
    assert wire.parameter("nothing") is None
    assert wire.is_ours
    os.fstat(wire.fileno())
