"""What is asked often is prepared on the server, and only the clock shows it."""

from __future__ import annotations

import decimal
import threading
import tracemalloc

import pytest

import poolproof.driver
from poolproof.driver import NotSupportedError, OperationalError, ProgrammingError

PREPARED = "select count(*) from pg_prepared_statements where name like 'poolproof%'"


def prepared(connection):
    [(count,)] = connection.execute(PREPARED).fetchall()
    assert count == connection.wire.prepared
    return count


@pytest.fixture
def eager(connecting):
    """Open a connection that prepares at once, and commits each statement."""
    return connecting(prepare_threshold=0, autocommit=True)


def test_statement_is_prepared_once_it_was_asked_often(connecting):
    connection = connecting(autocommit=True)
    for number in range(20):
        found = connection.execute("select %s::int, 'x'", [number]).fetchall()
        assert found == [(number, "x")]
        # Its own question is counted, too.
        assert connection.wire.prepared == (number >= 5)


def test_beginning_is_prepared_as_well(connecting):
    connection = connecting(prepare_threshold=2)
    for _ in range(4):
        connection.execute("select 1")
        connection.rollback()
    names = "select statement from pg_prepared_statements order by 1"
    assert connection.execute(names).fetchall() == [("BEGIN",), ("select 1",)]


@pytest.mark.parametrize("how", ["connect", "attribute"])
def test_preparing_can_be_switched_off(connecting, how):
    connection = connecting(
        autocommit=True, **({"prepare_threshold": None} if how == "connect" else {})
    )
    if how == "attribute":
        connection.prepare_threshold = 0
        connection.execute("select 1")
        assert connection.wire.prepared == 1
        connection.prepare_threshold = None
    for number in range(10):
        connection.execute("select %s::int", [number])
    connection.prepare_threshold = None
    assert connection.wire.prepared == 0
    # The server is told with the next statement that has parameters.
    connection.prepare_threshold = 100
    connection.execute("select %s::int", [1])
    assert prepared(connection) == 0


@pytest.mark.parametrize("value", [-1, "5", 1.5, True, 2**40])
def test_what_is_no_threshold_is_refused(connection, connecting, value):
    for refused in (
        lambda: connecting(prepare_threshold=value),
        lambda: setattr(connection, "prepare_threshold", value),
    ):
        with pytest.raises(ProgrammingError, match="prepare_threshold"):
            refused()


@pytest.mark.parametrize(
    "statement",
    ["create temp table made (n int)", "set work_mem to '5MB'", "select 1; select 2"],
)
def test_what_has_no_result_of_its_own_is_not_prepared(eager, statement):
    eager.execute(statement)
    assert eager.wire.prepared == 0


def test_parameters_of_other_types_are_another_statement(eager):
    for value in (1, 70_000, 1, "x", decimal.Decimal(2)):
        assert eager.execute("select %s::text", [value]).fetchone() == (str(value),)
    assert prepared(eager) == 5  # with the question that counts them


def test_no_more_are_kept_than_there_is_room_for(eager):
    for number in range(150):
        found = eager.execute(f"select {number}, %s::int", [number]).fetchone()
        assert found == (number, number)
    assert 90 <= prepared(eager) <= 100


def test_statement_that_is_wrong_is_right_later(eager):
    for _ in range(3):
        with pytest.raises(ProgrammingError):
            eager.execute("select * from later where n > %s", [0])
    eager.execute("create temp table later (n int)")
    eager.execute("insert into later values (1)")
    for _ in range(3):
        found = eager.execute("select * from later where n > %s", [0]).fetchall()
        assert found == [(1,)]


def test_error_of_a_value_leaves_it_prepared(eager):
    for value in (1, 0, 2, 0, 1):
        if value:
            found = eager.execute("select 10 / %s::int", [value]).fetchone()
            assert found == (10 // value,)
        else:
            with pytest.raises(poolproof.driver.DataError):
                eager.execute("select 10 / %s::int", [value])
    assert eager.wire.prepared == 1


@pytest.fixture
def changing(connecting, dsn):
    """Make a table whose columns another session can change."""
    other = connecting(autocommit=True)
    other.execute("drop table if exists changing")
    other.execute("create table changing (n int)")
    other.execute("insert into changing values (1)")
    yield other
    other.execute("drop table changing")


def test_changed_table_is_read_anew_where_nothing_of_a_transaction_is_lost(
    connecting, changing
):
    autocommits = connecting(prepare_threshold=0, autocommit=True)
    begins = connecting(prepare_threshold=0)
    rows = [(1,)]
    for kind in ("int", "bigint", "text", "numeric(5, 2)"):
        changing.execute(f"alter table changing alter n type {kind} using n::{kind}")
        changing.execute("alter table changing add column if not exists m int")
        for connection in (autocommits, begins):
            for _ in range(3):
                rows = connection.execute("select * from changing").fetchall()
                assert len(rows) == 1
                assert rows[0][1] is None
                connection.rollback()
        assert autocommits.execute("select n from changing").fetchone()[0] == (
            "1" if kind == "text" else 1
        )
        assert begins.info.transaction_status == 0
    assert str(rows[0][0]) == "1.00"


def test_changed_table_is_an_error_in_the_middle_of_a_transaction(connecting, changing):
    connection = connecting(prepare_threshold=0)
    connection.execute("select * from changing")
    connection.commit()
    connection.execute("select 1")
    changing.execute("alter table changing add column m int")
    with pytest.raises(NotSupportedError, match="must not change result type"):
        connection.execute("select * from changing")
    connection.rollback()
    assert connection.execute("select * from changing").fetchall() == [(1, None)]
    connection.rollback()


def test_table_that_the_connection_changes_itself_is_read_anew(connecting):
    connection = connecting(prepare_threshold=0)
    connection.execute("create temp table own (n int)")
    connection.execute("insert into own values (1)")
    connection.commit()
    for end in (connection.rollback, connection.commit):
        for _ in range(2):
            assert connection.execute("select * from own").fetchone() == (1,)
        connection.execute("alter table own add m int")
        for _ in range(2):
            assert connection.execute("select * from own").fetchone() == (1, None)
        end()
    for _ in range(2):
        assert connection.execute("select * from own").fetchone() == (1, None)


FORGET = [
    "discard all",
    "deallocate all",
    "do $$ begin execute 'deallocate all'; end $$",
    "select 1; deallocate all; select 2",
]


@pytest.mark.parametrize("statement", FORGET)
def test_server_may_forget_what_was_prepared(eager, statement):
    for _ in range(3):
        for number in range(3):
            found = eager.execute("select %s::int + 1", [number]).fetchall()
            assert found == [(number + 1,)]
        eager.execute(statement)


@pytest.mark.parametrize("statement", FORGET[1:])
def test_server_may_forget_between_transactions(connecting, statement):
    connection = connecting(prepare_threshold=0)
    for _ in range(3):
        for number in range(3):
            found = connection.execute("select %s::int + 1", [number]).fetchall()
            assert found == [(number + 1,)]
        connection.commit()
        connection.execute(statement)
        connection.commit()


def test_searched_schemas_and_temporary_tables_count_as_they_are_now(eager):
    eager.execute("create schema if not exists aside")
    eager.execute("drop table if exists aside.seen")
    eager.execute("drop table if exists seen")
    eager.execute("create table seen as select 'public' as place")
    eager.execute("create table aside.seen as select 'aside' as place")
    for path, place in (("public", "public"), ("aside", "aside"), ("public", "public")):
        eager.execute(f"set search_path to {path}")
        assert eager.execute("select place from seen").fetchone() == (place,)
    eager.execute("create temp table seen as select 'own' as place")
    assert eager.execute("select place from seen").fetchone() == ("own",)


@pytest.mark.parametrize("autocommit", [False, True])
def test_nothing_is_prepared_behind_a_pooler(pooler, autocommit):
    started = pooler(pool_mode="transaction", default_pool_size=2)
    url = started.url.set(drivername="postgresql")
    dsn = url.render_as_string(hide_password=False)
    wrong: list[object] = []

    def ask(client):
        try:
            with poolproof.driver.connect(
                dsn, autocommit=autocommit, prepare_threshold=0
            ) as connection:
                for step in range(30):
                    value = client * 1000 + step
                    rows = connection.execute("select %s::int", [value]).fetchall()
                    connection.commit()
                    if rows != [(value,)] or connection.wire.prepared:
                        wrong.append((value, rows))
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_description_of_what_is_prepared_is_a_copy(eager):
    for _ in range(3):
        cursor = eager.execute("select 1 as one, 'x'::varchar(7) as two")
        first, second = cursor.description
        assert (first.name, first.type_code) == ("one", 23)
        assert (second.name, second.display_size) == ("two", 7)
        cursor.description.clear()


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kolkata"])
def test_moment_has_the_sessions_offset_prepared_or_not(connecting, zone):
    connections = [
        connecting(prepare_threshold=threshold, autocommit=True)
        for threshold in (None, 0)
    ]
    shown = set()
    for connection in connections:
        for _ in range(3):
            connection.execute(f"set timezone to '{zone}'")
            cursor = connection.execute(
                "select '2026-07-01 12:00:00.5+00'::timestamptz"
            )
            shown.add(repr(cursor.fetchone()[0]))
    assert len(shown) == 1


def test_many_rows_are_not_in_memory_at_once(connecting):
    connection = connecting()
    connection.execute("create temp table many (n int, t text)")
    alive, most = 0, 0

    class Value(str):
        __slots__ = ()

        def __new__(cls, text):
            nonlocal alive, most
            alive += 1
            most = max(most, alive)
            return super().__new__(cls, text)

        def __del__(self):
            nonlocal alive
            alive -= 1

    count = 20_000
    rows = ((n, Value("x" * 100)) for n in range(count))
    tracemalloc.start()
    try:
        cursor = connection.cursor()
        cursor.executemany("insert into many values (%s, %s)", rows)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert cursor.rowcount == count
    assert most < count / 4
    assert peak < 10_000_000
    found = connection.execute("select count(*), sum(n) from many").fetchone()
    assert found == (count, sum(range(count)))


@pytest.mark.parametrize("autocommit", [False, True])
@pytest.mark.parametrize("position", [3, 15_000])
def test_row_that_cannot_be_sent_has_none_of_them_done(
    connecting, autocommit, position
):
    connection = connecting(autocommit=autocommit)
    connection.execute("create temp table few (n int, t text)")
    connection.commit()

    def rows():
        for number in range(20_000):
            yield (number, object() if number == position else "x" * 50)

    with pytest.raises(ProgrammingError, match="object"):
        connection.cursor().executemany("insert into few values (%s, %s)", rows())
    connection.rollback()
    assert connection.execute("select count(*) from few").fetchone() == (0,)


def test_row_that_the_server_refuses_ends_the_others(connecting):
    connection = connecting(autocommit=True)
    connection.execute("create temp table few (n int primary key)")
    taken = 0

    def rows():
        nonlocal taken
        for number in range(200_000):
            taken += 1
            yield (min(number, 100),)

    with pytest.raises(poolproof.driver.IntegrityError):
        connection.cursor().executemany("insert into few values (%s)", rows())
    assert taken < 200_000  # the rest was not even asked for
    assert connection.execute("select count(*) from few").fetchone() == (0,)


def test_generator_that_raises_has_its_own_error_raised(connecting):
    connection = connecting(autocommit=True)
    connection.execute("create temp table few (n int)")

    def rows():
        yield from ((n,) for n in range(5000))
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        connection.cursor().executemany("insert into few values (%s)", rows())
    assert connection.execute("select count(*) from few").fetchone() == (0,)


def test_results_of_many_statements_are_left_out(connection):
    rows = [(n, "x" * 200) for n in range(5000)]
    cursor = connection.cursor()
    cursor.executemany("select %s::int, repeat(%s, 20)", rows)
    assert cursor.rowcount == 5000
    assert connection.execute("select 1").fetchone() == (1,)


def test_types_may_change_from_row_to_row(connection):
    connection.execute("create temp table mixed (n numeric)")
    values = [1, 70_000, 2**40, decimal.Decimal("1.5"), None, 2]
    cursor = connection.cursor()
    cursor.executemany("insert into mixed values (%s)", [(one,) for one in values])
    found = connection.execute("select n from mixed").fetchall()
    assert [one for (one,) in found] == values


def test_lost_connection_in_the_middle_of_many_is_an_error(connecting, looking):
    connection = connecting()
    connection.execute("create temp table few (n int)")

    def rows():
        for number in range(100_000):
            if number == 50_000:
                looking.terminate(connection.wire.pid)
            yield (number,)

    with pytest.raises(OperationalError):
        connection.cursor().executemany("insert into few values (%s)", rows())
    assert connection.closed
