"""Cursors that the server keeps."""

from __future__ import annotations

import pytest

import poolproof.driver as dbapi

ROWS = "select n from generate_series(0, 99) n order by n"


@pytest.fixture
def named(connection):
    with connection.cursor('a "name"') as cursor:
        yield cursor


def test_rows_come_as_they_are_fetched(named):
    named.execute(ROWS)
    assert [column.name for column in named.description] == ["n"]
    assert named.rowcount == -1
    assert named.fetchone() == (0,)
    assert named.fetchmany() == [(1,)]
    assert named.fetchmany(3) == [(2,), (3,), (4,)]
    assert named.rownumber == 5
    named.itersize = 10
    assert [n for (n,) in named][:2] == [5, 6]
    assert named.fetchall() == []
    assert named.fetchone() is None


def test_parameters_are_bound(named):
    named.execute(
        "select %(a)s::int + n from generate_series(1, %(b)s) n", {"a": 10, "b": 2}
    )
    assert named.fetchall() == [(11,), (12,)]


def test_cursor_can_be_used_again(named):
    for number in (1, 2):
        named.execute("select %s", [number])
        assert named.fetchall() == [(number,)]


def test_scroll_moves_on_the_server(connection):
    with connection.cursor("c", scrollable=True) as cursor:
        cursor.execute(ROWS)
        cursor.scroll(50)
        assert cursor.fetchone() == (50,)
        cursor.scroll(-11)
        assert cursor.fetchone() == (40,)
        cursor.scroll(10, mode="absolute")
        assert cursor.fetchone() == (10,)
        with pytest.raises(dbapi.ProgrammingError, match="absolute"):
            cursor.scroll(1, mode="sideways")


def test_cursor_that_cannot_scroll_says_so(connection):
    with connection.cursor("c", scrollable=False) as cursor:
        cursor.execute(ROWS)
        cursor.fetchmany(10)
        with pytest.raises(dbapi.OperationalError) as refused:
            cursor.scroll(-5)
    assert refused.value.sqlstate == "55000"


def test_cursor_with_hold_outlives_the_transaction(connection):
    cursor = connection.cursor("held", withhold=True)
    cursor.execute(ROWS)
    connection.commit()
    assert cursor.fetchmany(2) == [(0,), (1,)]
    assert connection.info.transaction_status == 0
    cursor.close()
    found = connection.execute(
        "select count(*) from pg_cursors where name <> ''"
    ).fetchone()
    assert found == (0,)


def test_closing_frees_the_cursor_on_the_server(connection, named):
    named.execute(ROWS)
    query = "select name from pg_cursors where name <> ''"
    assert connection.execute(query).fetchall() == [('a "name"',)]
    named.close()
    assert connection.execute(query).fetchall() == []


@pytest.mark.parametrize("end", ["commit", "rollback", "close"])
def test_closing_after_the_transaction_sends_nothing_wrong(connection, named, end):
    named.execute(ROWS)
    getattr(connection, end)()
    named.close()


def test_closing_in_a_failed_transaction_leaves_its_error_alone(connection, named):
    named.execute(ROWS)
    with pytest.raises(dbapi.DataError):
        connection.execute("select 1/0")
    named.close()
    connection.rollback()


def test_what_a_servers_cursor_cannot_do_is_refused(connection, named):
    with pytest.raises(dbapi.ProgrammingError, match="executemany"):
        named.executemany("select %s", [(1,)])
    with pytest.raises(dbapi.ProgrammingError, match="no rows to fetch"):
        named.fetchone()
    with pytest.raises(dbapi.ProgrammingError, match="empty"):
        connection.cursor("")
    with pytest.raises(dbapi.ProgrammingError):
        named.execute("create temp table t (n int)")


def test_stream_yields_rows_without_having_all(connection):
    cursor = connection.cursor()
    rows = cursor.stream("select generate_series(1, %s)", [10], size=3)
    assert next(rows) == (1,)
    assert cursor.description[0].name == "generate_series"
    assert [n for (n,) in rows] == list(range(2, 11))
    found = connection.execute(
        "select count(*) from pg_cursors where name <> ''"
    ).fetchone()
    assert found == (0,)
