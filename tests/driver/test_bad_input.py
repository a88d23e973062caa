"""Each wrong use: its class of PEP 249, a sentence that helps, a session in step."""

from __future__ import annotations

from decimal import Decimal

import pytest

import poolproof.driver as dbapi

UNKNOWN = object()


class Strange:
    """A type that no driver knows."""


@pytest.mark.parametrize(
    ("dsn", "keywords", "said"),
    [
        ("host", {}, "connection string"),
        ("postgresql://localhost/?nonsense=1", {}, "nonsense"),
        ("", {"nonsense": "1"}, "nonsense"),
        (5, {}, "not int"),
        ("", {"timeout": "soon"}, "number of seconds"),
        ("", {"timeout": float("nan")}, "number of seconds"),
        ("", {"port": "abc"}, "port"),
        ("", {"port": 70000}, "1 to 65535"),
        ("", {"sslmode": "perhaps"}, "verify-full"),
        ("", {"host": "a\0b"}, "host"),
        ("", {"user": "\ud800"}, "surrogate"),
    ],
)
def test_wrong_connection_string_is_a_programming_error(dsn, keywords, said):
    with pytest.raises(dbapi.ProgrammingError, match=said):
        dbapi.connect(dsn, **keywords)


def test_wrong_connection_string_does_not_show_its_password():
    with pytest.raises(dbapi.ProgrammingError) as refused:
        dbapi.connect("postgresql://me:hush@localhost/?nonsense=1")
    assert "hush" not in repr(refused.value)
    assert refused.value.__cause__ is refused.value.__context__ is None


def test_host_that_does_not_resolve_is_an_operational_error():
    with pytest.raises(dbapi.OperationalError, match=r"no-such-host\.invalid"):
        dbapi.connect(host="no-such-host.invalid", user="postgres", timeout=20)


def test_nobody_listening_is_an_operational_error(contrib_pg):
    with pytest.raises(dbapi.OperationalError, match="1"):
        dbapi.connect(host=contrib_pg.host, port=1, user="postgres")


def test_unknown_database_is_an_operational_error_with_its_sqlstate(contrib_pg):
    with pytest.raises(dbapi.OperationalError, match="nowhere") as refused:
        dbapi.connect(
            host=contrib_pg.host,
            port=contrib_pg.port,
            user="postgres",
            dbname="nowhere",
        )
    assert refused.value.sqlstate == "3D000"


def test_other_encoding_is_refused(dsn):
    with pytest.raises(dbapi.NotSupportedError, match="UTF8"):
        dbapi.connect(dsn, client_encoding="latin1")
    dbapi.connect(dsn, client_encoding="utf-8").close()


@pytest.mark.parametrize(
    ("statement", "parameters", "kind", "said"),
    [
        ("select %s", [Strange()], dbapi.ProgrammingError, "Strange cannot be sent"),
        ("select %s", [{"a": 1}], dbapi.ProgrammingError, "Jsonb"),
        ("select %s", ["a\0b"], dbapi.DataError, "NUL"),
        ("select 'a\0b'", None, dbapi.DataError, "NUL"),
        ("select %s", ["\ud800"], dbapi.DataError, "surrogate"),
        ("select %s, %s", [1], dbapi.ProgrammingError, "2 placeholders"),
        ("select %s", [1, 2], dbapi.ProgrammingError, "1 placeholder"),
        ("select %s", "a", dbapi.ProgrammingError, "not str"),
        ("select %s", b"a", dbapi.ProgrammingError, "not bytes"),
        ("select %s", {1}, dbapi.ProgrammingError, "not set"),
        ("select %s", 5, dbapi.ProgrammingError, "not int"),
        ("select %s", {"a": 1}, dbapi.ProgrammingError, "needs a sequence"),
        ("select %(a)s", [1], dbapi.ProgrammingError, "needs a mapping"),
        ("select %(a)s", {"b": 1}, dbapi.ProgrammingError, "'a'"),
        ("select %(a)s, %s", [1], dbapi.ProgrammingError, "one kind"),
        ("select %d", [1], dbapi.ProgrammingError, "no placeholder"),
        ("select 5 % 3", [1], dbapi.ProgrammingError, "%%"),
        ("select %s", [["a", ["b\0"]]], dbapi.DataError, "NUL"),
        (f"select {'%s,' * 70000} 1", [1] * 70000, dbapi.DataError, "65535 at most"),
        (5, None, dbapi.ProgrammingError, "not int"),
        (b"\xff", None, dbapi.ProgrammingError, "UTF-8"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_anything_is(
    connection, in_step, statement, parameters, kind, said
):
    with pytest.raises(kind, match=said):
        connection.execute(statement, parameters)
    assert connection.info.transaction_status == 0
    in_step()


@pytest.mark.parametrize(
    ("statement", "parameters", "kind", "sqlstate"),
    [
        ("select %s::bigint", [1 << 63], dbapi.DataError, "22003"),
        ("select %s::int", ["x"], dbapi.DataError, "22P02"),
        ("selec 1", None, dbapi.ProgrammingError, "42601"),
        ("select 1; select 2", [1], dbapi.ProgrammingError, None),
        ("select %s; select 2", [1], dbapi.ProgrammingError, "42601"),
        ("select * from nowhere", None, dbapi.ProgrammingError, "42P01"),
        ("fetch 1 from nowhere", None, dbapi.ProgrammingError, "34000"),
        ("select %s::int[]", [[[1], [2, 3]]], dbapi.DataError, "22P02"),
        ("select %s", [Decimal("1E+200000")], dbapi.DataError, "22003"),
    ],
)
def test_servers_error_has_its_class_and_leaves_the_session_in_step(
    connection, in_step, statement, parameters, kind, sqlstate
):
    with pytest.raises(kind) as refused:
        connection.execute(statement, parameters)
    assert refused.value.sqlstate == sqlstate
    in_step()


def test_int_beyond_bigint_travels_as_a_numeric(cursor):
    assert cursor.execute("select %s", [1 << 70]).fetchone() == (1 << 70,)


def test_fetch_without_a_result_is_refused(cursor):
    for call in (cursor.fetchone, cursor.fetchmany, cursor.fetchall):
        with pytest.raises(dbapi.ProgrammingError, match="no rows to fetch"):
            call()
    with pytest.raises(dbapi.ProgrammingError, match="no rows to fetch"):
        cursor.scroll(1)
    cursor.execute("create temp table t (n int)")
    with pytest.raises(dbapi.ProgrammingError, match="RETURNING"):
        cursor.fetchone()


def test_list_that_holds_itself_is_refused(connection, in_step):
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(dbapi.DataError, match="more than 6 lists"):
        connection.execute("select %s", [endless])
    in_step()


def test_cursor_is_no_value(connection, connecting, in_step):
    for value in (connection.cursor(), connecting().cursor(), connection):
        with pytest.raises(dbapi.ProgrammingError, match="cannot be sent"):
            connection.execute("select %s", [value])
    in_step()


def test_servers_cursor_belongs_to_its_own_connection(connection, connecting, in_step):
    other = connecting()
    with connection.cursor("same") as mine, other.cursor("same") as its:
        mine.execute("select 'mine'")
        its.execute("select 'its'")
        assert (mine.fetchone(), its.fetchone()) == (("mine",), ("its",))
        other.close()
        with pytest.raises(dbapi.InterfaceError, match="open another"):
            its.fetchone()
        assert mine.fetchone() is None
    with connection.cursor("gone") as mine:
        mine.execute("select 1")
        connection.rollback()
        with pytest.raises(dbapi.ProgrammingError, match="does not exist"):
            mine.fetchone()
    in_step()


@pytest.mark.parametrize("rows", [5, None, "ab", b"ab", [5], ["ab"], [{1}]])
def test_executemany_without_rows_is_refused(connection, in_step, rows):
    with pytest.raises(dbapi.ProgrammingError, match="sequence"):
        connection.cursor().executemany("select %s", rows)
    assert connection.info.transaction_status == 0
    in_step()


def test_scroll_and_time_are_numbers(connection, in_step):
    cursor = connection.execute("select 1")
    with pytest.raises(dbapi.ProgrammingError, match="number of rows"):
        cursor.scroll("x")
    with pytest.raises(dbapi.ProgrammingError, match="number of seconds"):
        next(connection.notifies(timeout=float("nan")))
    in_step()


@pytest.mark.parametrize("name", ["", "x" * 200, "x\0"])
def test_name_that_no_server_takes_begins_no_transaction(connection, in_step, name):
    with pytest.raises(dbapi.ProgrammingError, match="1 to 199"):
        connection.tpc_begin(name)
    assert connection.info.transaction_status == 0
    in_step()


def test_failed_statement_leaves_no_rows_of_the_one_before(cursor):
    cursor.execute("select 1")
    with pytest.raises(dbapi.DataError):
        cursor.execute("select 1/0")
    with pytest.raises(dbapi.ProgrammingError, match="no rows to fetch"):
        cursor.fetchone()


def test_wrong_row_among_many_is_refused_and_none_is_done(connection, in_step):
    connection.execute("create temp table t (n int)")
    connection.commit()
    rows = [(1,), (Strange(),), (3,)]
    with pytest.raises(dbapi.ProgrammingError, match="Strange"):
        connection.cursor().executemany("insert into t values (%s)", rows)
    in_step()
    assert connection.execute("select count(*) from t").fetchone() == (0,)


def test_rows_that_fail_to_come_are_not_half_sent(connection, in_step):
    connection.execute("create temp table t (n int)")
    connection.commit()

    def rows():
        yield (1,)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        connection.cursor().executemany("insert into t values (%s)", rows())
    in_step()
    assert connection.execute("select count(*) from t").fetchone() == (0,)


@pytest.mark.parametrize(
    "text", ["infinity", "-infinity", "0044-03-15 BC", "12345-01-01"]
)
@pytest.mark.parametrize("kind", ["date", "timestamp", "timestamptz"])
def test_time_that_python_does_not_have_is_a_data_error(
    connection, in_step, kind, text
):
    with pytest.raises(dbapi.DataError):
        connection.execute(f"select '{text}'::{kind}, 1")
    in_step()


def test_loader_that_fails_raises_its_error_and_costs_nothing(connection, in_step):
    def load(text):
        raise ZeroDivisionError(text)

    dbapi.register_type(connection.type_info("int4"), connection, load=load)
    with pytest.raises(ZeroDivisionError):
        connection.execute("select 1, 2")
    dbapi.register_type(connection.type_info("int4"), connection, load=int)
    dbapi.register_type(connection.type_info("int2"), connection, load=int)
    in_step()


@pytest.mark.parametrize(
    "statement",
    ["copy (select 1) to stdout", "create temp table c (n int); copy c from stdin"],
)
def test_execute_does_not_copy_and_names_what_does(connection, in_step, statement):
    with pytest.raises(dbapi.NotSupportedError, match=r"cursor\.copy\(\)"):
        connection.execute(statement)
    in_step()


@pytest.mark.parametrize(
    ("call", "instead"),
    [
        (lambda connection: connection.cursor().copy_from("file", "t"), "copy_expert"),
        (lambda connection: connection.cursor().copy_to("file", "t"), "copy_expert"),
    ],
)
def test_what_is_not_there_says_what_to_use(connection, call, instead):
    with pytest.raises(dbapi.NotSupportedError, match=instead):
        call(connection)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("autocommit", True),
        ("isolation_level", "SERIALIZABLE"),
        ("read_only", True),
        ("deferrable", True),
    ],
)
def test_transaction_cannot_be_changed_in_its_middle(connection, in_step, name, value):
    connection.execute("select 1")
    with pytest.raises(dbapi.ProgrammingError, match="commit or roll back first"):
        setattr(connection, name, value)
    in_step()


def test_unknown_isolation_level_is_refused(connection):
    with pytest.raises(dbapi.ProgrammingError, match="'REPEATABLE READ'"):
        connection.isolation_level = "CHAOS"


def test_invalid_utf8_of_a_server_without_an_encoding_is_a_data_error(
    contrib_pg, looking
):
    looking.rows("drop database if exists ascii")
    looking.rows(
        "create database ascii encoding 'SQL_ASCII' template template0"
        " lc_collate 'C' lc_ctype 'C'"
    )
    place = {"host": contrib_pg.host, "port": contrib_pg.port, "user": "postgres"}
    with dbapi.connect(**place, dbname="ascii", autocommit=True) as opened:
        with pytest.raises(dbapi.DataError):
            opened.execute("select chr(255), 1")
        assert opened.execute("select 42").fetchone() == (42,)
    looking.rows("drop database ascii (force)")
