"""The important promises again, on a real server with real drivers."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import event, exc, text
from sqlalchemy.pool import QueuePool

from plugins.harm import wait_for_the_end
from plugins.threads import Task, wait_for_waiters

BACKEND = text("select pg_backend_pid()")
# pg8000's close raises on a lost session, and leaves its socket to the collector.
LEFT_TO_THE_COLLECTOR = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture
def hears_resets(driver, pool_class):
    """Leave out a pool that cannot keep the promise.

    pg8000 passes a reset on as it is, an OSError, when it comes before the server's
    word: SQLAlchemy takes that for no disconnect. Ours does, in tests/faults.
    """
    if driver == "pg8000" and pool_class is QueuePool:
        pytest.skip("QueuePool knows no disconnect in a reset that pg8000 meets")


@pytest.fixture(params=["tcp", "unix"])
def engine(request, make_engine, pg_url, driver):
    return make_engine(
        pg_url(driver, unix=request.param == "unix"),
        pool_size=2,
        max_overflow=1,
        pool_timeout=10,
    )


@pytest.fixture
def pinging(make_engine, pg_url, driver):
    return make_engine(
        pg_url(driver), pool_size=2, max_overflow=0, pool_timeout=10, pool_pre_ping=True
    )


def backend(engine):
    with engine.connect() as connection:
        return connection.scalar(BACKEND)


def test_session_is_used_again(engine, observer):
    assert len({backend(engine) for _ in range(5)}) == 1
    assert len(observer.wait_for_backends(1)) == 1


def test_no_more_sessions_than_the_capacity(engine, observer):
    start = threading.Barrier(8)
    most = []

    def work():
        start.wait(20)
        for turn in range(10):
            with engine.connect() as connection:
                assert connection.scalar(text("select 41 + 1")) == 42
                if turn == 5:
                    most.append(len(engine.pool.status()))
            if turn == 5:
                most.append(engine.pool.checkedout() <= 3)

    for task in [Task(work) for _ in range(8)]:
        task.result(40)
    assert all(most)
    assert len(observer.wait_for_backends(2)) == 2
    assert engine.pool.checkedin() == 2


def test_open_transaction_is_rolled_back_on_return(engine, table, observer):
    with engine.connect() as connection:
        connection.execute(text(f"insert into {table} values (1)"))
    assert observer.value(f"select count(*) from {table}") == 0
    states = observer.rows(
        "select state from pg_stat_activity where pid = any(%s)", observer.backends()
    )
    assert states == [("idle",)]


def test_raw_transaction_is_rolled_back_on_return(engine, table, observer):
    raw = engine.raw_connection()
    raw.cursor().execute(f"insert into {table} values (1)")
    raw.close()
    assert observer.value(f"select count(*) from {table}") == 0
    assert engine.pool.checkedin() == 1


def test_transaction_that_was_ended_in_words_does_not_turn_the_next_off(
    engine, table, observer
):
    """The server is idle, and a driver may not know it until it is rolled back."""
    fairy = engine.raw_connection()
    fairy.cursor().execute("select 1")
    fairy.cursor().execute("commit")
    fairy.close()
    fairy = engine.raw_connection()
    fairy.cursor().execute(f"insert into {table} values (1)")
    fairy.close()
    assert observer.value(f"select count(*) from {table}") == 0


def test_failed_transaction_leaves_a_usable_connection(engine):
    with engine.connect() as connection, pytest.raises(exc.DBAPIError):
        connection.execute(text("select 1 / 0"))
    with engine.connect() as connection:
        assert connection.scalar(text("select 1")) == 1
    assert engine.pool.checkedin() == 1


def test_commit_on_return_commits(make_engine, pg_url, driver, table, observer):
    engine = make_engine(pg_url(driver), pool_reset_on_return="commit")
    raw = engine.raw_connection()
    raw.cursor().execute(f"insert into {table} values (1)")
    raw.close()
    assert observer.value(f"select count(*) from {table}") == 1


def test_dispose_ends_the_idle_sessions(engine, observer):
    taken = [engine.connect() for _ in range(2)]
    pids = [connection.scalar(BACKEND) for connection in taken]
    for connection in taken:
        connection.close()
    assert sorted(observer.backends()) == sorted(pids)
    engine.dispose()
    assert observer.wait_for_backends(0) == []
    assert backend(engine) not in pids


def test_connection_that_is_out_survives_dispose(engine):
    old = engine.pool
    with engine.connect() as connection:
        pid = connection.scalar(BACKEND)
        engine.dispose()
        assert connection.scalar(BACKEND) == pid
    old.dispose()  # where it came back to


def test_detached_session_ends_when_it_is_closed(engine, observer):
    with engine.connect() as connection:
        pid = connection.scalar(BACKEND)
        connection.detach()
        assert pid in observer.backends()
    assert observer.wait_for_backends(0) == []


@LEFT_TO_THE_COLLECTOR
@pytest.mark.usefixtures("hears_resets")
def test_pre_ping_replaces_a_terminated_session(pinging, observer):
    pid = backend(pinging)
    observer.terminate(pid)
    assert backend(pinging) != pid
    assert pinging.pool.checkedout() == 0


@LEFT_TO_THE_COLLECTOR
@pytest.mark.usefixtures("hears_resets")
def test_pre_ping_replaces_every_session_that_was_terminated(pinging, observer):
    taken = [pinging.connect(), pinging.connect()]
    pids = {connection.scalar(BACKEND) for connection in taken}
    for connection in taken:
        connection.close()
    for pid in pids:
        observer.terminate(pid)
    taken = [pinging.connect(), pinging.connect()]
    assert pids.isdisjoint(connection.scalar(BACKEND) for connection in taken)
    for connection in taken:
        connection.close()


@LEFT_TO_THE_COLLECTOR
@pytest.mark.usefixtures("hears_resets")
def test_session_that_is_terminated_while_it_is_out_is_an_error_once(engine, observer):
    with engine.connect() as connection:
        observer.terminate(connection.scalar(BACKEND))
        wait_for_the_end(connection)
        with pytest.raises(exc.DBAPIError) as caught:
            connection.scalar(BACKEND)
        assert caught.value.connection_invalidated
        del caught
    assert backend(engine) in observer.backends()
    assert engine.pool.checkedout() == 0


def test_recycle_replaces_an_old_session(make_engine, pg_url, driver, observer, clock):
    engine = make_engine(pg_url(driver), pool_recycle=60)
    first = backend(engine)
    clock.advance(59)
    assert backend(engine) == first
    clock.advance(2)
    assert backend(engine) != first
    assert len(observer.wait_for_backends(1)) == 1


def test_invalidated_session_ends(engine, observer):
    with engine.connect() as connection:
        pid = connection.scalar(BACKEND)
        connection.invalidate()
        connection.rollback()
        assert connection.scalar(BACKEND) != pid
    assert len(observer.wait_for_backends(1)) == 1


def test_waiter_gets_the_session_that_comes_back(make_engine, pg_url, driver):
    engine = make_engine(pg_url(driver), pool_size=1, max_overflow=0, pool_timeout=20)
    held = engine.connect()
    pid = held.scalar(BACKEND)
    waiter = Task(backend, engine)
    wait_for_waiters(engine.pool, 1)
    held.close()
    assert waiter.result() == pid


def test_server_that_refuses_is_an_error_and_loses_no_slot(make_engine, pg_url, driver):
    engine = make_engine(
        pg_url(driver).set(database="no_such_database"), pool_size=1, max_overflow=0
    )
    for _ in range(3):
        with pytest.raises(exc.DBAPIError, match="no_such_database"):
            engine.connect()
        assert engine.pool.checkedout() == 0


def test_isolation_level_is_reset_on_return(engine):
    with engine.connect().execution_options(isolation_level="SERIALIZABLE") as one:
        assert one.scalar(text("show transaction_isolation")) == "serializable"
    with engine.connect() as one:
        assert one.scalar(text("show transaction_isolation")) == "read committed"


def test_autocommit_connection_commits_at_once(engine, table, observer):
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as one:
        one.execute(text(f"insert into {table} values (1)"))
        assert observer.value(f"select count(*) from {table}") == 1


def test_connect_listener_sees_the_driver_s_connection(make_engine, pg_url, driver):
    engine = make_engine(pg_url(driver))
    seen = []
    event.listen(engine, "connect", lambda c, _r: seen.append(type(c).__module__))
    backend(engine)
    assert seen
    assert seen[0].startswith(driver)


@LEFT_TO_THE_COLLECTOR
@pytest.mark.usefixtures("hears_resets")
def test_connections_over_tls(make_engine, debian_pg, debian_observer, driver):
    engine = make_engine(debian_pg.url(driver, **tls(driver)), connect_args={})
    with engine.connect() as connection:
        pid = connection.scalar(BACKEND)
        encrypted = text("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
        assert connection.scalar(encrypted) is True
    assert backend(engine) == pid
    debian_observer.terminate(pid)
    engine.dispose()
    assert backend(engine) != pid
    engine.dispose()
    assert debian_observer.wait_for_backends(0) == []


def tls(driver):
    # pg8000 asks for TLS by itself where the server offers it.
    return {} if driver == "pg8000" else {"sslmode": "require"}
