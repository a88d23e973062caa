"""What ends the use of an inherited connection is silent, and sends nothing."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import QueuePool

import poolproof
from plugins.processes import run_in_fork, warn
from poolproof.fork import renewal


def close(connection, engine):
    connection.close()


def rollback(connection, engine):
    connection.rollback()
    connection.close()


def rollback_of_a_transaction(connection, engine):
    connection.get_transaction().rollback()


def invalidate(connection, engine):
    connection.invalidate()
    connection.close()


def leave_the_block(connection, engine):
    connection.__exit__(None, None, None)


def leave_the_block_with_an_error(connection, engine):
    connection.__exit__(ValueError, ValueError(), None)


def detach(connection, engine):
    connection.detach()
    connection.close()


def dispose(connection, engine):
    engine.dispose()


def dispose_without_closing(connection, engine):
    engine.dispose(close=False)


def dispose_of_the_pool(connection, engine):
    engine.pool.dispose()
    engine.pool.recreate()


def close_the_fairy(connection, engine):
    connection.connection.close()


def roll_the_fairy_back(connection, engine):
    connection.connection.rollback()


def invalidate_softly(connection, engine):
    connection.connection.invalidate(soft=True)


def close_everything_twice(connection, engine):
    for _ in range(2):
        connection.rollback()
        connection.close()
        engine.dispose()


ENDINGS = [
    close,
    rollback,
    rollback_of_a_transaction,
    invalidate,
    leave_the_block,
    leave_the_block_with_an_error,
    detach,
    dispose,
    dispose_without_closing,
    dispose_of_the_pool,
    close_the_fairy,
    roll_the_fairy_back,
    invalidate_softly,
    close_everything_twice,
]


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.__name__)
def test_an_ending_in_the_child_is_silent_and_sends_nothing(
    engine, open_transaction, ending, backend_of
):
    def child():
        ending(open_transaction.connection, engine)
        return backend_of(engine)

    report = run_in_fork(child).assert_silent()
    assert report.result != open_transaction.backend
    open_transaction.assert_untouched()


def test_dropping_every_reference_is_silent(engine, open_transaction):
    transaction = open_transaction

    def child():
        connection, transaction.connection = transaction.connection, None
        del connection
        gc.collect()
        return engine.pool.checkedout()

    assert run_in_fork(child).assert_silent().result == 0
    transaction.assert_untouched()


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("hooked", [True, False], ids=["fork", "fork of C code"])
def test_closing_a_result_that_streams_is_silent(pg_url, driver, hooked, echo):
    """A cursor of the server's is closed by a word to it, which SQLAlchemy logs."""
    engine = create_engine(pg_url(driver), poolclass=poolproof.Pool, echo_pool=echo)
    streaming = engine.connect().execution_options(stream_results=True, yield_per=2)
    result = streaming.execute(text("select generate_series(1, 9)"))
    assert result.fetchone() == (1,)

    def child():
        if not hooked:
            renewal.renewed_generation -= 1  # as where no hook of Python's has run
        result.close()

    run_in_fork(child).assert_silent()
    assert result.fetchone() == (2,)
    result.close()
    streaming.close()
    engine.dispose()


def test_error_of_closing_a_cursor_of_ones_own_is_logged(
    pg_url, driver, observer, caplog
):
    """As SQLAlchemy does: only that of an inherited one is worth no line."""
    engine = create_engine(pg_url(driver), poolclass=poolproof.Pool)
    with engine.connect() as connection:
        broken = _Unclosable()
        connection._safe_close_cursor(broken)
    found = [one for one in caplog.records if one.msg == "Error closing cursor"]
    assert len(found) == 1
    assert found[0].exc_info[0] is ZeroDivisionError
    engine.dispose()


class _Unclosable:
    def close(self):
        raise ZeroDivisionError


def test_removing_a_scoped_session_is_silent(engine, table, observer):
    session = scoped_session(sessionmaker(engine))
    session.execute(text(f"insert into {table} values (1)"))
    run_in_fork(session.remove).assert_silent()
    session.commit()
    session.remove()
    assert observer.value(f"select count(*) from {table}") == 1


def test_closing_a_session_with_an_open_savepoint_is_silent(engine, table, observer):
    session = Session(engine)
    session.execute(text(f"insert into {table} values (1)"))
    nested = session.begin_nested()
    session.execute(text(f"insert into {table} values (2)"))

    def child():
        nested.rollback()
        session.close()

    run_in_fork(child).assert_silent()
    session.commit()
    session.close()
    assert observer.value(f"select count(*) from {table}") == 2


def test_a_detached_connection_is_left_alone_too(engine, table, observer):
    connection = engine.connect()
    connection.detach()
    connection.execute(text(f"insert into {table} values (1)"))

    def child():
        connection.rollback()
        connection.close()

    run_in_fork(child).assert_silent()
    connection.commit()
    connection.close()
    assert observer.value(f"select count(*) from {table}") == 1


def test_listeners_of_the_application_are_not_called_for_inherited_connections(engine):
    called = []
    for name in ("reset", "checkin", "close", "invalidate", "detach"):
        event.listen(engine, name, lambda *_, name=name: called.append(name))
    connection = engine.connect()
    connection.execute(text("select 1"))
    called.clear()

    def child():
        connection.close()
        engine.dispose()
        return called

    assert run_in_fork(child).assert_silent().result == []
    connection.close()
    assert called == ["reset", "checkin"]


def test_a_pool_with_rollback_on_return_switched_off_is_silent(
    pg_url, driver, make_engine, table, observer
):
    engine = make_engine(pg_url(driver), pool_reset_on_return=None)
    connection = engine.connect()
    connection.execute(text(f"insert into {table} values (1)"))
    run_in_fork(connection.close).assert_silent()
    connection.commit()
    connection.close()
    assert observer.value(f"select count(*) from {table}") == 1


def test_under_queuepool_the_same_child_destroys_the_parents_transaction(
    pg_url, driver, make_engine, table, observer
):
    """The proof that the tests above can fail: what they show absent is there."""
    engine = make_engine(pg_url(driver), poolclass=QueuePool)
    connection = engine.connect()
    connection.execute(text(f"insert into {table} values (1)"))
    run_in_fork(connection.close)
    connection.commit()
    connection.close()
    # Our own driver keeps its child silent under any pool.
    kept = 1 if driver == "poolproof" else 0
    assert observer.value(f"select count(*) from {table}") == kept


def test_a_child_that_exits_normally_is_silent(pg_url, driver):
    """Interpreter exit runs finalizers; here in a child that leaves by sys.exit."""
    url = pg_url(driver).render_as_string(hide_password=False)
    script = textwrap.dedent(
        """
        import os, sys, warnings
        from sqlalchemy import create_engine, text
        import poolproof
        engine = create_engine(sys.argv[1], poolclass=poolproof.Pool)
        out = engine.connect(); out.execute(text("select 1"))
        idle = engine.connect(); idle.close()
        held = engine.raw_connection().cursor()
        if os.fork() == 0:
            sys.exit(0)
        assert os.wait()[1] == 0
        out.execute(text("select 1"))
        held.close(); out.close(); engine.dispose()
        os._exit(0)
        """
    )
    done = subprocess.run(
        [sys.executable, "-X", "dev", *warn("error"), "-c", script, url],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, "XDG_RUNTIME_DIR": "/tmp"},
    )
    assert (done.returncode, done.stderr) == (0, "")
