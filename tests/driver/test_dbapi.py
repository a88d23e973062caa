"""What PEP 249 asks of a module, its connections and its cursors, one by one."""

from __future__ import annotations

import datetime as dt
import inspect
import time

import pytest

import poolproof.driver as dbapi

EXCEPTIONS = {
    "Warning": Exception,
    "Error": Exception,
    "InterfaceError": dbapi.Error,
    "DatabaseError": dbapi.Error,
    "DataError": dbapi.DatabaseError,
    "OperationalError": dbapi.DatabaseError,
    "IntegrityError": dbapi.DatabaseError,
    "InternalError": dbapi.DatabaseError,
    "ProgrammingError": dbapi.DatabaseError,
    "NotSupportedError": dbapi.DatabaseError,
}


@pytest.fixture
def wares(cursor):
    cursor.execute("create temp table wares (id int primary key, name text)")
    cursor.executemany(
        "insert into wares values (%s, %s)", [(n, f"ware {n}") for n in range(5)]
    )
    return cursor


def test_module_says_how_it_is_used():
    assert dbapi.apilevel == "2.0"
    assert dbapi.threadsafety == 2
    assert dbapi.paramstyle == "pyformat"


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_exceptions_inherit_as_pep_249_draws_them(name, connection):
    found = getattr(dbapi, name)
    assert found.__base__ is EXCEPTIONS[name]
    assert getattr(connection, name) is found


def test_connect_takes_keywords_in_place_of_a_string(contrib_pg):
    place = {"host": contrib_pg.host, "port": contrib_pg.port, "user": "postgres"}
    with dbapi.connect(**place, dbname="postgres") as opened:
        assert opened.execute("select current_database()").fetchone() == ("postgres",)


def test_statements_are_undone_by_rollback_and_kept_by_commit(connecting, looking):
    looking.rows("drop table if exists kept")
    looking.rows("create table kept (n int)")
    one = connecting()
    cursor = one.cursor()
    cursor.execute("insert into kept values (1)")
    one.rollback()
    cursor.execute("insert into kept values (2)")
    one.commit()
    cursor.execute("insert into kept values (3)")
    one.close()  # as a rollback
    assert looking.rows("select n from kept") == [(2,)]
    looking.rows("drop table kept")


def test_commit_and_rollback_without_a_transaction_do_nothing(connection):
    connection.commit()
    connection.rollback()
    assert connection.info.transaction_status == 0


def test_description_is_none_before_a_statement_and_after_one_without_rows(cursor):
    assert cursor.description is None
    cursor.execute("create temp table t (n int)")
    assert cursor.description is None
    cursor.execute("select n from t")
    assert cursor.description is not None


def test_description_has_seven_items_of_each_column(cursor):
    cursor.execute(
        "select 1 as n, 'a'::varchar(7) as v, 1.5::numeric(6,2) as d, now()::date as t,"
        " 1::numeric(3,-2) as r, now()::timestamp(3) as p"
    )
    found = cursor.description
    assert [tuple(column) for column in found] == [
        ("n", 23, None, 4, None, None, None),
        ("v", 1043, 7, None, None, None, None),
        ("d", 1700, None, None, 6, 2, None),
        ("t", 1082, None, 4, None, None, None),
        *([("r", 1700, None, None, 3, -2, None)]),
        ("p", 1114, None, 8, 3, None, None),
    ]
    assert found[0].name == "n"


def test_description_is_psycopgs(cursor, other):
    query = "select 1 as n, 'a'::varchar(7), 1.5::numeric(6,2), now(), '\\x00'::bytea"
    cursor.execute(query)
    theirs = other.execute(query).description
    assert [tuple(ours) for ours in cursor.description] == [
        tuple(column) for column in theirs
    ]


def test_rowcount_counts_rows_returned_and_changed(wares):
    assert wares.rowcount == 5  # of executemany, all together
    wares.execute("select * from wares where id < 3")
    assert wares.rowcount == 3
    wares.execute("update wares set name = '' where id > 3")
    assert wares.rowcount == 1
    wares.execute("create temp table another (n int)")
    assert wares.rowcount == -1


@pytest.mark.parametrize(
    "statement", ["show server_version", "explain select 1", "call pg_temp.two(1, 2)"]
)
def test_rowcount_counts_rows_where_the_tag_does_not(connecting, other, statement):
    create = (
        "create procedure pg_temp.two(inout a int, inout b int)"
        " language sql as 'select 1, 2'"
    )
    for threshold in (0, None):
        ours = connecting(autocommit=True, prepare_threshold=threshold)
        ours.execute(create)
        assert ours.execute(statement).rowcount == 1
        assert ours.execute(statement, []).rowcount == 1
    other.execute(create)
    assert other.execute(statement).rowcount == 1


def test_rowcount_is_minus_one_before_a_statement(cursor):
    assert cursor.rowcount == -1


def test_rows_are_fetched_in_each_way(wares):
    wares.execute("select id from wares order by id")
    assert wares.fetchone() == (0,)
    assert wares.fetchmany() == [(1,)]
    assert wares.fetchmany(2) == [(2,), (3,)]
    assert wares.fetchall() == [(4,)]
    assert wares.fetchone() is None
    assert wares.fetchmany() == wares.fetchall() == []


def test_fetchmany_returns_arraysize_rows(wares):
    wares.execute("select id from wares order by id")
    assert wares.arraysize == 1
    wares.arraysize = 3
    assert len(wares.fetchmany()) == 3


def test_cursor_is_an_iterator_over_its_rows(wares):
    wares.execute("select id from wares order by id")
    assert next(wares) == (0,)
    assert [number for (number,) in wares] == [1, 2, 3, 4]
    with pytest.raises(StopIteration):
        wares.next()


def test_rownumber_counts_from_zero(wares):
    assert wares.rownumber is None
    wares.execute("select id from wares order by id")
    assert wares.rownumber == 0
    wares.fetchmany(2)
    assert wares.rownumber == 2


def test_scroll_moves_both_ways_and_refuses_to_leave_the_rows(wares):
    wares.execute("select id from wares order by id")
    wares.scroll(3)
    assert wares.fetchone() == (3,)
    wares.scroll(-2)
    assert wares.fetchone() == (2,)
    wares.scroll(0, mode="absolute")
    assert wares.fetchone() == (0,)
    for value, mode in ((9, "relative"), (-1, "absolute")):
        with pytest.raises(IndexError):
            wares.scroll(value, mode)
    assert wares.fetchone() == (1,)
    with pytest.raises(dbapi.ProgrammingError, match="relative"):
        wares.scroll(1, mode="sideways")


def test_execute_returns_the_cursor_and_knows_its_connection(connection, cursor):
    assert cursor.execute("select 1") is cursor
    assert cursor.connection is connection


def test_last_result_of_several_statements_is_kept(cursor):
    cursor.execute("select 1; select 2, 3")
    assert cursor.fetchall() == [(2, 3)]
    assert cursor.nextset() is None


def test_empty_statement_has_no_result(cursor):
    for text in ("", ";", "  ", "-- nothing"):
        cursor.execute(text)
        assert cursor.description is None
        assert cursor.statusmessage is None


def test_executemany_of_nothing_does_nothing(connection, cursor):
    cursor.executemany("insert into nowhere values (%s)", [])
    assert cursor.rowcount == 0
    assert connection.info.transaction_status == 0


def test_executemany_takes_mappings_and_generators(cursor):
    cursor.execute("create temp table t (a int, b text)")
    rows = ({"a": n, "b": str(n)} for n in range(1000))
    cursor.executemany("insert into t values (%(a)s, %(b)s)", rows)
    assert cursor.rowcount == 1000
    cursor.execute("select count(*), sum(a) from t")
    assert cursor.fetchone() == (1000, 499500)


def test_executemany_does_all_or_nothing_with_autocommit_too(connecting):
    one = connecting(autocommit=True)
    cursor = one.cursor()
    cursor.execute("create temp table t (n int primary key)")
    with pytest.raises(dbapi.IntegrityError):
        cursor.executemany("insert into t values (%s)", [(1,), (2,), (1,)])
    assert cursor.execute("select count(*) from t").fetchone() == (0,)


def test_callproc_calls_a_function_and_returns_its_parameters(cursor):
    given = ["ABC"]
    assert cursor.callproc("lower", given) is given
    assert cursor.fetchall() == [("abc",)]
    assert cursor.callproc("pg_catalog.repeat", ("ab", 2)) == ("ab", 2)
    assert cursor.fetchall() == [("abab",)]
    with pytest.raises(dbapi.ProgrammingError, match="name of a function"):
        cursor.callproc("lower('a'); drop table wares --", [])


def test_sizes_are_taken_and_mean_nothing(cursor):
    cursor.setinputsizes([10, None])
    cursor.setoutputsize(10)
    cursor.setoutputsize(10, 0)
    assert cursor.execute("select 1").fetchone() == (1,)


def test_type_objects_equal_the_types_of_columns(cursor):
    cursor.execute(
        "select 'a'::text, '\\x00'::bytea, 1, 1.5, 1::float8, now(), now()::date,"
        " 1::oid"
    )
    codes = [column.type_code for column in cursor.description]
    kinds = [dbapi.STRING, dbapi.BINARY, *[dbapi.NUMBER] * 3, *[dbapi.DATETIME] * 2]
    assert codes == [*kinds, dbapi.ROWID]
    assert dbapi.STRING != dbapi.NUMBER
    assert codes[0] != dbapi.NUMBER


def test_constructors_make_values_that_can_be_sent(cursor):
    ticks = time.mktime((2024, 2, 29, 11, 22, 33, 0, 0, -1))
    values = [
        dbapi.Date(2024, 2, 29),
        dbapi.Time(11, 22, 33),
        dbapi.Timestamp(2024, 2, 29, 11, 22, 33),
        dbapi.DateFromTicks(ticks),
        dbapi.TimeFromTicks(ticks),
        dbapi.TimestampFromTicks(ticks),
        dbapi.Binary(b"\0\xff"),
    ]
    cursor.execute("select %s, %s, %s, %s, %s, %s, %s", values)
    assert cursor.fetchone() == tuple(values)
    assert values[3:6] == [
        dt.date(2024, 2, 29),
        dt.time(11, 22, 33),
        dt.datetime(2024, 2, 29, 11, 22, 33),  # noqa: DTZ001 - PEP 249's have none
    ]


def test_cursors_of_one_connection_see_each_others_work(connection):
    one, two = connection.cursor(), connection.cursor()
    one.execute("create temp table shared (n int)")
    two.execute("insert into shared values (7)")
    one.execute("select n from shared")
    two.execute("select 1")
    assert one.fetchall() == [(7,)]


def test_cursor_is_a_context_manager(connection):
    with connection.cursor() as cursor:
        cursor.execute("select 1")
    assert cursor.closed
    with pytest.raises(dbapi.InterfaceError, match="cursor was closed"):
        cursor.fetchone()


def test_connection_commits_and_closes_at_the_end_of_its_block(connecting, looking):
    looking.rows("create table if not exists blocks (n int)")
    with connecting() as one:
        one.execute("insert into blocks values (1)")
    assert one.closed
    two = connecting()

    def fail():
        with two:
            two.execute("insert into blocks values (2)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert two.closed
    assert looking.rows("select n from blocks") == [(1,)]
    looking.rows("drop table blocks")


@pytest.mark.parametrize("verb", ["commit", "rollback", "cursor", "ping", "cancel"])
def test_closed_connection_refuses_what_needs_it(connection, verb):
    connection.close()
    connection.close()
    with pytest.raises(dbapi.InterfaceError, match="connection was closed"):
        getattr(connection, verb)()


def test_cursor_of_a_closed_connection_refuses_what_needs_it(connection, cursor):
    cursor.execute("select 1")
    connection.close()
    for call in (lambda: cursor.execute("select 1"), lambda: cursor.nextset()):
        with pytest.raises(dbapi.InterfaceError, match="connection was closed"):
            call()


def test_every_public_name_has_a_meaning():
    for name in dbapi.__all__:
        found = getattr(dbapi, name)
        if inspect.isclass(found) or inspect.isfunction(found):
            assert found.__doc__, name
