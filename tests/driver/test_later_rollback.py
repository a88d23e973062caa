"""A ROLLBACK whose answer is read ahead of the next one's, for an engine's check-in."""

from __future__ import annotations

import contextlib
import os
import threading

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import QueuePool

import poolproof
import poolproof.driver
from plugins.threads import eventually


@pytest.fixture
def piped(connecting):
    """Open a connection that does not wait for the answer to ROLLBACK."""
    return connecting(pipeline=True)


@contextlib.contextmanager
def stopped(pid):
    """Have a backend answer nothing for the time being."""
    os.kill(pid, 19)
    try:
        yield
    finally:
        os.kill(pid, 18)


def test_rollback_does_not_wait_and_the_next_statement_is_right(piped):
    for number in range(50):
        assert piped.execute("select %s::int", [number]).fetchone() == (number,)
        piped.rollback()
        assert piped.info.transaction_status == 0


def test_silent_server_does_not_hold_it_up(piped, connecting):
    pid = piped.wire.pid
    piped.execute("select 1")
    with stopped(pid):
        piped.rollback()  # waits for nothing
        assert piped.info.transaction_status == 0
    assert piped.execute("select 2").fetchone() == (2,)


def test_it_is_sent_at_once(piped, looking):
    piped.execute("select 1")
    state = "select state from pg_stat_activity where pid = %s"
    assert looking.value(state, piped.wire.pid) == "idle in transaction"
    piped.rollback()
    eventually(lambda: looking.value(state, piped.wire.pid) == "idle")


def test_nothing_of_a_transaction_is_left(piped, other):
    other.execute("drop table if exists later")
    other.execute("create table later (n int)")
    for _ in range(20):
        piped.execute("insert into later values (1)")
        piped.rollback()
        piped.execute("insert into later values (2)")
        piped.commit()
    found = other.execute("select n, count(*) from later group by n").fetchall()
    assert found == [(2, 20)]


@pytest.mark.parametrize(
    "ask",
    [
        lambda connection: connection.commit(),
        lambda connection: connection.rollback(),
        lambda connection: connection.ping(),
        lambda connection: list(connection.notifies(timeout=0.01)),
        lambda connection: connection.execute("select 1; select 2").fetchone(),
        lambda connection: connection.cursor().executemany("select %s::int", [[1]]),
        lambda connection: connection.type_info("int4"),
        lambda connection: connection.tpc_recover(),
        lambda connection: setattr(connection, "isolation_level", "SERIALIZABLE"),
        lambda connection: setattr(connection, "autocommit", True),
    ],
)
def test_whatever_is_asked_next_has_its_own_answer(piped, ask):
    for _ in range(3):
        piped.execute("select 1")
        piped.rollback()
        ask(piped)
        piped.rollback()
        assert piped.execute("select 3").fetchone() == (3,)
        piped.rollback()
        piped.autocommit = False


def test_statement_that_commits_itself_waits_for_it(piped, looking):
    """Else it might be done in the transaction that was to be over."""
    piped.execute("select 1")
    piped.rollback()
    piped.autocommit = True
    found = piped.execute("select now() = statement_timestamp()").fetchone()
    assert found == (True,)


def test_lost_connection_is_an_error_of_the_next_statement(piped, looking):
    piped.execute("select 1")
    with stopped(piped.wire.pid):
        piped.rollback()
    looking.terminate(piped.wire.pid)
    with pytest.raises(poolproof.driver.OperationalError) as caught:
        piped.execute("insert into nowhere values (1)")
    assert caught.value.outcome == "not_done"
    assert piped.closed


def test_it_can_be_closed_with_an_answer_still_to_come(piped, looking):
    piped.execute("select 1")
    pid = piped.wire.pid
    piped.rollback()
    piped.close()
    alive = "select count(*) from pg_stat_activity where pid = %s"
    eventually(lambda: looking.value(alive, pid) == 0)


def test_child_sends_nothing_and_the_parent_goes_on(piped):
    piped.execute("select 1")
    piped.rollback()
    pid = os.fork()
    if pid == 0:
        refused = False
        try:
            piped.execute("select 2")
        except poolproof.driver.InterfaceError:
            refused = True
        finally:
            os._exit(0 if refused else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert piped.execute("select 3").fetchone() == (3,)


# --- the pool ---------------------------------------------------------------------


@pytest.fixture
def make_engine(contrib_pg):
    """Make engines on the driver."""
    made = []

    def make(**options):
        engine = create_engine(contrib_pg.url("poolproof"), **options)
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.dispose()


@pytest.mark.parametrize("kind", [poolproof.Pool, QueuePool])
def test_pool_lends_the_same_connection_again_and_again(make_engine, kind):
    engine = make_engine(poolclass=kind, pool_size=1, max_overflow=0)
    pids = set()
    for _ in range(200):
        with engine.connect() as connection:
            pids.add(connection.scalar(text("select pg_backend_pid()")))
    assert len(pids) == 1
    if kind is poolproof.Pool:
        assert not engine.pool.stats().discarded


def test_threads_that_pass_connections_on_have_their_own_answers(make_engine):
    engine = make_engine(pool_size=2, max_overflow=0)
    wrong = []

    def ask(number):
        try:
            for step in range(100):
                value = number * 1000 + step
                with engine.connect() as connection:
                    found = connection.scalar(text("select :v").bindparams(v=value))
                    if found != value:
                        wrong.append((value, found))
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert not engine.pool.stats().discarded


def test_answer_that_is_late_is_asked_for_before_lending(make_engine):
    engine = make_engine(
        pool_size=1, max_overflow=0, connect_args={"prepare_threshold": None}
    )
    with engine.connect() as connection:
        raw = connection.connection.driver_connection
        pid = raw.wire.pid
        connection.execute(text("select 1"))
    with engine.connect() as connection:
        connection.execute(text("select 1"))
        os.kill(pid, 19)
        connection.close()  # sent, and not answered
        threading.Event().wait(0.4)
        threading.Timer(0.2, os.kill, (pid, 18)).start()
    with engine.connect() as connection:
        assert connection.scalar(text("select pg_backend_pid()")) == pid
    assert engine.pool.totals.pings.copy() == {"ok": 1}


def test_it_can_be_switched_off(make_engine):
    engine = make_engine(pool_size=1, connect_args={"pipeline": False})
    with engine.connect() as connection:
        raw = connection.connection.driver_connection
        connection.execute(text("select 1"))
        begun = threading.Event()
        done = threading.Event()

        def close():
            begun.set()
            connection.close()
            done.set()

        with stopped(raw.wire.pid):
            thread = threading.Thread(target=close)
            thread.start()
            begun.wait()
            assert not done.wait(0.3)  # it waits for the answer
        thread.join()
    assert done.is_set()
