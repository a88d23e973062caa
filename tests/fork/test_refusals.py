"""What would go on with an inherited connection raises ConnectionForked."""

from __future__ import annotations

import os
import pickle

import pytest
from sqlalchemy import exc, select, text
from sqlalchemy.orm import Session

import poolproof
from plugins.processes import run_in_fork


def refused(action):
    """Run in the child: the error that `action` ended with, described."""
    try:
        action()
    except poolproof.ConnectionForked as error:
        return {
            "parent": error.parent_pid,
            "child": error.child_pid,
            "text": str(error),
            "invalidated": error.connection_invalidated,
            "operational": isinstance(error, exc.OperationalError),
            "pid": os.getpid(),
        }
    return None


def assert_names_both(described):
    assert described is not None, "nothing was refused"
    assert described["parent"] == os.getpid()
    assert described["child"] == described["pid"] != os.getpid()
    assert str(os.getpid()) in described["text"]
    assert str(described["pid"]) in described["text"]
    assert described["invalidated"]
    assert described["operational"]


@pytest.mark.parametrize("verb", ["execute", "scalar", "commit", "begin_nested"])
def test_a_verb_on_an_inherited_connection_names_both_processes(open_transaction, verb):
    connection = open_transaction.connection
    verbs = {
        "execute": lambda: connection.execute(text("select 1")),
        "scalar": lambda: connection.scalar(text("select 1")),
        "commit": connection.commit,
        "begin_nested": connection.begin_nested,
    }
    report = run_in_fork(lambda: refused(verbs[verb])).assert_silent()
    assert_names_both(report.result)
    open_transaction.assert_untouched()


def test_begin_on_an_inherited_connection_is_refused(engine):
    connection = engine.connect()
    report = run_in_fork(lambda: refused(connection.begin)).assert_silent()
    assert_names_both(report.result)
    connection.close()


def test_a_context_manager_that_began_in_the_parent_is_refused_at_its_end(engine):
    def child():
        return refused(lambda: transaction.__exit__(None, None, None))

    with engine.connect() as connection, connection.begin() as transaction:
        connection.execute(text("select 1"))
        assert_names_both(run_in_fork(child).assert_silent().result)


def test_a_session_is_refused_then_works_after_a_rollback(engine, open_transaction):
    session = Session(open_transaction.connection.engine)
    backend = session.scalar(text("select pg_backend_pid()"))

    def child():
        first = refused(lambda: session.execute(select(1)))
        session.rollback()
        return first, session.scalar(text("select pg_backend_pid()"))

    report = run_in_fork(child).assert_silent()
    assert_names_both(report.result[0])
    assert report.result[1] not in {backend, open_transaction.backend}
    session.close()
    open_transaction.assert_untouched()


def test_a_refused_commit_of_a_session_commits_nothing(engine, table, observer):
    session = Session(engine)
    session.execute(text(f"insert into {table} values (1)"))
    report = run_in_fork(lambda: refused(session.commit)).assert_silent()
    assert_names_both(report.result)
    assert observer.value(f"select count(*) from {table}") == 0
    session.commit()
    session.close()
    assert observer.value(f"select count(*) from {table}") == 1


def test_a_raw_connection_is_refused_too(engine):
    raw = engine.raw_connection()

    def child():
        return refused(raw.cursor), refused(raw.commit)

    for described in run_in_fork(child).assert_silent().result:
        assert_names_both(described)
    raw.close()


def test_a_cursor_held_over_the_fork_raises_the_drivers_own_disconnect(engine):
    raw = engine.raw_connection()
    cursor = raw.cursor()
    cursor.execute("select 1")
    dbapi = engine.dialect.loaded_dbapi

    def child():
        try:
            cursor.execute("select 2")
        except (dbapi.Error, OSError) as error:
            return type(error).__name__
        return None

    assert run_in_fork(child).result is not None
    cursor.execute("select 3")
    assert list(cursor.fetchone()) == [3]
    cursor.close()
    raw.rollback()
    raw.close()


def test_a_streaming_result_is_refused_in_the_child(pg_url, make_engine):
    engine = make_engine(pg_url("psycopg2"))
    with engine.connect() as connection:
        streaming = connection.execution_options(stream_results=True, max_row_buffer=5)
        result = streaming.execute(text("select generate_series(1, 1000)"))
        assert result.fetchone() == (1,)
        report = run_in_fork(lambda: refused(result.fetchall))
        assert_names_both(report.result)
        assert len(result.fetchall()) == 999


def test_a_new_checkout_on_the_same_engine_works(engine, open_transaction, backend_of):
    report = run_in_fork(lambda: (backend_of(engine), engine.pool.checkedout()))
    backend, out = report.assert_silent().result
    assert backend != open_transaction.backend
    assert out == 0
    open_transaction.assert_untouched()


def test_idle_connections_are_not_shared(engine, backend_of):
    parent = backend_of(engine)
    backends = {run_in_fork(lambda: backend_of(engine)).result for _ in range(3)}
    assert len(backends) == 3
    assert parent not in backends
    assert backend_of(engine) == parent


def test_the_errors_survive_pickling():
    error = pickle.loads(pickle.dumps(poolproof.ConnectionForked(11, 12)))
    assert (error.parent_pid, error.child_pid) == (11, 12)
    assert error.connection_invalidated
    assert "process 11" in str(error)
    holder = poolproof.Holder("worker-1", 11, 2.5)
    error = pickle.loads(
        pickle.dumps(poolproof.PoolTimeout("main", 5, 10, 15, 3, 30.0, (holder,)))
    )
    assert error.holders == (holder,)
    assert "worker-1 (process 11) for 2.50 s" in str(error)
    assert error.code == "3o7r"
