"""Pipelines of one's own: sent together, answered one by one."""

from __future__ import annotations

import contextlib
import os
import signal
import threading

import pytest

import poolproof.driver as dbapi
from plugins.forging import Forger
from plugins.threads import Task, eventually

MARK = ord("3")


@pytest.fixture
def table(connection):
    connection.execute("create temp table piped (n int primary key)")
    connection.commit()
    return "insert into piped values (%s)"


def numbers(connection):
    return [n for (n,) in connection.execute("select n from piped order by n")]


def test_each_statement_has_its_own_answer(connection, in_step):
    with connection.pipeline():
        cursors = [connection.execute("select %s::int, 'x'", [n]) for n in range(50)]
        none = connection.execute("create temp table made (n int)")
        empty = connection.execute("")
        plain = connection.execute("select 7")
    for number, cursor in enumerate(cursors):
        assert cursor.fetchall() == [(number, "x")]
        assert cursor.rowcount == 1
        assert cursor.description[0].name == "int4"
    assert none.description is None
    assert none.statusmessage == "CREATE TABLE"
    assert empty.statusmessage is None
    assert plain.fetchone() == (7,)
    in_step()


@pytest.fixture
def forger(contrib_pg):
    made = Forger((contrib_pg.host, contrib_pg.port))
    yield made
    made.close()


@pytest.fixture
def forged(forger):
    where = {"host": "127.0.0.1", "port": forger.port, "user": "postgres"}
    opened = dbapi.connect(sslmode="disable", **where)
    yield opened
    opened.close()


def test_all_of_it_is_one_request(forged, forger):
    requests = []
    forger.forge = lambda request, answer: requests.append(request)
    with forged.pipeline():
        cursors = [forged.execute("select %s::int", [n]) for n in range(50)]
        assert not requests  # nothing was waited for
    assert [cursor.fetchone() for cursor in cursors] == [(n,) for n in range(50)]
    assert len(requests) == 1  # BEGIN is in it


def test_an_answer_in_the_place_of_another_is_found(forged, forger):
    """Between the statements of a request there are marks as well.

    Without those (`WireSession.part`) the third statement had the second one's value.
    """

    def twice(_request, answer):
        ends = [n + 1 for n, one in enumerate(answer) if one[:1] == b"C"]
        _begin, first, second, third, *_ = ends
        return [answer[:second] + answer[first:second] + answer[third:]]

    with forged.pipeline():
        cursors = [forged.execute("select %s::int", [n]) for n in range(5)]
        forger.forge = twice
        with pytest.raises(dbapi.OperationalError, match="the server sent"):
            cursors[4].fetchone()
        forger.forge = lambda *_: None
    assert forged.closed
    for cursor in cursors:
        with pytest.raises(dbapi.OperationalError):
            cursor.fetchone()


def test_an_error_has_the_rest_not_run(connection, table, in_step):
    with pytest.raises(dbapi.IntegrityError), connection.pipeline():
        cursors = [connection.execute(table, [n]) for n in (1, 2, 2, 3, 4)]
    assert [cursor.rowcount for cursor in cursors[:2]] == [1, 1]
    with pytest.raises(dbapi.IntegrityError):
        cursors[2].fetchone()
    for cursor in cursors[3:]:
        with pytest.raises(dbapi.PipelineAborted) as caught:
            cursor.fetchone()
        assert caught.value.outcome == "not_done"
    assert connection.info.transaction_status == 3  # of a failed transaction
    in_step()
    assert numbers(connection) == []


def test_after_sync_it_begins_anew(connecting, other):
    connection = connecting(autocommit=True)
    connection.execute("create temp table piped (n int primary key)")
    insert = "insert into piped values (%s)"
    with connection.pipeline() as pipeline:
        connection.execute(insert, [1])
        pipeline.sync()
        connection.execute(insert, [2])
        failing = connection.execute("select 1/0")
        with pytest.raises(dbapi.DataError):
            failing.fetchone()
        late = connection.execute(insert, [3])
        with pytest.raises(dbapi.PipelineAborted):
            late.fetchone()
        pipeline.sync()  # it was raised before
        connection.execute(insert, [4])
    # What goes under one end of a request is one transaction.
    assert numbers(connection) == [1, 4]


def test_what_else_is_asked_comes_behind_it(connection, table, other):
    with connection.pipeline():
        connection.execute(table, [1])
        connection.commit()
        connection.execute(table, [2])
        connection.rollback()
        connection.execute(table, [3])
        connection.cursor().executemany(table, [(4,), (5,)])
        with connection.cursor("named") as named:
            named.execute("select count(*) from piped")
            assert named.fetchone() == (4,)
        with connection.cursor().copy("copy piped from stdin") as copy:
            copy.write_row((6,))
        connection.execute(table, [7])
        connection.ping()
        connection.commit()
    assert numbers(connection) == [1, 3, 4, 5, 6, 7]


def test_a_commit_behind_an_error_is_none(connection, table):
    with connection.pipeline():
        connection.execute("select 1/0")
        connection.execute(table, [1])
        with pytest.raises(dbapi.DataError):
            connection.commit()
        connection.rollback()
    assert numbers(connection) == []


def test_one_cursor_may_run_many(connection, table):
    with connection.pipeline():
        cursor = connection.cursor()
        for number in range(2500):
            cursor.execute(table, [number])
        cursor.execute("select count(*) from piped")
        assert cursor.fetchone() == (2500,)
    with connection.pipeline(), connection.pipeline():
        cursor = connection.cursor().execute("select 1")
    cursor.execute("select 2")  # behind the block it runs at once
    assert cursor.fetchone() == (2,)


def test_much_goes_both_ways_at_once(connection):
    text = "x" * 1_000_000
    with connection.pipeline():
        cursors = [connection.execute("select %s::text", [text]) for _ in range(30)]
    assert all(cursor.fetchone() == (text,) for cursor in cursors)


def test_a_value_that_cannot_be_sent(connection, table, in_step):
    with connection.pipeline():
        connection.execute(table, [1])
        wrong = connection.execute(table, [object()])
        behind = connection.execute(table, [2])
        with pytest.raises(dbapi.ProgrammingError):
            wrong.fetchone()
        with pytest.raises(dbapi.PipelineAborted):
            behind.fetchone()
    assert numbers(connection) == [1]
    with pytest.raises(dbapi.ProgrammingError), connection.pipeline():
        connection.execute("select %s, %s", [1])
    with pytest.raises(dbapi.NotSupportedError), connection.pipeline():
        connection.execute("copy piped to stdout")
    in_step()


def test_an_exception_in_the_block_has_nothing_sent(connecting):
    connection = connecting(autocommit=True)
    connection.execute("create temp table piped (n int primary key)")
    cursors = []

    def leave():
        with connection.pipeline():
            cursors.append(connection.execute("insert into piped values (1)"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        leave()
    with pytest.raises(dbapi.PipelineAborted):
        cursors[0].fetchone()
    assert numbers(connection) == []


def test_an_interruption_in_the_middle_costs_the_connection(connecting, looking):
    connection = connecting(autocommit=True)
    main = threading.get_ident()
    query = "select count(*) from pg_stat_activity where pid = %s and wait_event = %s"
    pid = connection.info.backend_pid

    def interrupt():
        eventually(lambda: looking.value(query, pid, "PgSleep"))
        signal.pthread_kill(main, signal.SIGINT)

    with contextlib.ExitStack() as stack:
        pipeline = stack.enter_context(connection.pipeline())
        done = connection.execute("select 1")
        sleeping = connection.execute("select pg_sleep(60)")
        interrupting = Task(interrupt)
        with pytest.raises(KeyboardInterrupt):
            pipeline.sync()
        interrupting.result()
    assert connection.closed
    for cursor in (done, sleeping):
        with pytest.raises(dbapi.OperationalError) as caught:
            cursor.fetchone()
        assert caught.value.outcome == "unknown"
    eventually(lambda: not looking.value(query, pid, "PgSleep"))


def test_a_child_sends_nothing_of_its_parents(connection, table):
    with connection.pipeline() as pipeline:
        connection.execute(table, [1])
        child = os.fork()
        if child == 0:
            refused = 1
            try:
                pipeline.sync()
            except dbapi.InterfaceError:
                refused = 0
            finally:
                os._exit(refused)
        assert os.waitpid(child, 0)[1] == 0
    assert numbers(connection) == [1]


@pytest.mark.parametrize("program", ["pooler", "telling_pooler"])
def test_behind_a_pooler(request, program):
    start = request.getfixturevalue(program)
    url = start(pool_mode="transaction", default_pool_size=2, max_client_conn=20).url
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    wrong = []

    def work(client):
        with contextlib.closing(dbapi.connect(dsn)) as connection:
            for turn in range(30):
                value = client * 1000 + turn
                with connection.pipeline():
                    cursors = [
                        connection.execute("select %s::int", [value + n])
                        for n in range(5)
                    ]
                    found = [cursor.fetchone() for cursor in cursors]
                if found != [(value + n,) for n in range(5)]:
                    wrong.append(found)
                connection.commit()

    for task in [Task(work, client) for client in range(6)]:
        task.result()
    assert wrong == []
