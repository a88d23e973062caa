"""What a discarded connection leaves behind is ended, and nothing else.

Long, because it is one idea: each thing that could be taken for it has its test.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, exc, text

import poolproof
from plugins.cluster import APPLICATION_NAME
from plugins.processes import run_in_fork, run_script
from plugins.threads import eventually
from plugins.wire import backend
from poolproof import _native

SLEEP = text("select pg_sleep(60)")
# Cancelled, it sleeps on.
STUBBORN = text(
    "do $$ begin loop begin perform pg_sleep(60); exception when query_canceled then"
    " null; end; end loop; end $$"
)
LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


@pytest.fixture(scope="module", autouse=True)
def _control_plane_runs():
    """Start it before the first look at what is open: it stays."""
    _native.start_control()


@pytest.fixture
def ending(make_engine, pg_url, driver):
    """Make engines that end what they leave behind."""

    def make(*, unix=False, **parameters):
        parameters = {"end_stranded_backends": True} | parameters
        return make_engine(pg_url(driver, unix=unix), **parameters)

    return make


def _is_there(observer, pid):
    return bool(observer.rows("select 1 from pg_stat_activity where pid = %s", pid))


def _said(caplog):
    """Return what was logged about backends, from WARNING on, once there is any.

    It is counted first, and then told.
    """

    def said():
        return [
            record.message
            for record in caplog.records
            if record.name == "poolproof.stranded" and record.levelno >= logging.WARNING
        ]

    eventually(said)
    return said()


def _settle(engine, *, recognised=True):
    """Connect, and wait until the server was asked about it."""
    pid = backend(engine)
    (entry,) = engine.pool._idle.values()
    if entry.backend is None:  # no server has such a process id, or such an address
        assert not recognised
    else:
        eventually(lambda: entry.backend.is_recognised is not None)
        assert entry.backend.is_recognised == recognised
    return pid


def _strand(connection, statement=SLEEP):
    """Leave a statement behind on the server."""
    with poolproof.deadline(0.3), pytest.raises(exc.DBAPIError):
        connection.execute(statement)


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_a_statement_that_was_left_behind_is_cancelled(
    ending, observer, table, unix, caplog
):
    caplog.set_level(logging.WARNING, "poolproof.stranded")
    engine = ending(unix=unix)
    pid = _settle(engine)
    with engine.connect() as connection:
        connection.execute(text(f"lock table {table}"))
        _strand(connection)
    stats = engine.pool.stats
    eventually(lambda: stats().stranded == {"cancelled": 1})
    assert not _is_there(observer, pid)
    # Its locks are free, long before the minute is over.
    assert observer.rows(f"select count(*) from {table}")
    (said,) = _said(caplog)
    assert f"Backend {pid}" in said
    assert "deadline_timeout" in said
    assert backend(engine) != pid


@pytest.mark.quick("psycopg2")
def test_one_that_does_not_heed_a_cancel_is_terminated(ending, observer, caplog):
    caplog.set_level(logging.WARNING, "poolproof.stranded")
    engine = ending()
    pid = _settle(engine)
    with engine.connect() as connection:
        _strand(connection, STUBBORN)
    eventually(lambda: engine.pool.stats().stranded == {"terminated": 1})
    assert not _is_there(observer, pid)
    assert "terminated" in caplog.text


def test_without_the_option_it_goes_on(ending, observer):
    engine = ending(end_stranded_backends=False)
    pid = backend(engine)
    with engine.connect() as connection:
        _strand(connection)
    backend(engine)
    assert engine.pool.stats().stranded == {}
    assert _is_there(observer, pid)


@pytest.mark.quick("psycopg2")
def test_one_that_has_gone_by_itself_is_counted(ending, observer):
    engine = ending()
    pid = _settle(engine)
    observer.terminate(pid)
    assert backend(engine) != pid
    eventually(lambda: engine.pool.stats().stranded == {"gone": 1})


@pytest.mark.quick("psycopg2")
def test_what_is_closed_in_order_is_no_business_of_it(ending, observer):
    engine = ending(max_lifetime=1)
    _settle(engine)
    with engine.connect() as connection:
        connection.invalidate()
    backend(engine)
    engine.dispose()
    assert engine.pool.stats().stranded == {}


def test_through_what_changes_ports_nothing_is_ended(
    make_engine, proxy, pg_url, driver, observer, caplog
):
    caplog.set_level(logging.WARNING, "poolproof.stranded")
    url = pg_url(driver).set(port=proxy.port)
    engine = make_engine(url, end_stranded_backends=True, pool_size=2)
    pid = _settle(engine, recognised=False)
    for _ in range(2):
        with engine.connect() as connection:
            _strand(connection)
    eventually(lambda: engine.pool.stats().stranded == {"unrecognised": 2})
    assert _is_there(observer, pid)
    (said,) = _said(caplog)
    assert "pooler" in said


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
@pytest.mark.quick("psycopg2")
def test_through_a_pooler_nothing_is_ended(make_engine, pooler, driver, observer, unix):
    started = pooler(pool_mode="session")
    url = started.unix_url if unix else started.url
    if unix and driver == "pg8000":
        path = f"{started.directory}/.s.PGSQL.{url.port}"
        url = url.set(port=None, query={"unix_sock": path})
    named = url.set(drivername=f"postgresql+{driver}")
    engine = make_engine(named, end_stranded_backends=True)
    pid = _settle(engine, recognised=False)
    with engine.connect() as connection:
        _strand(connection)
    eventually(lambda: engine.pool.stats().stranded == {"unrecognised": 1})
    observer.end(pid)


class _Liar(threading.Thread):
    """Listens at a unix socket, and tells every client another's process id."""

    def __init__(self, path, server, pid):
        super().__init__(daemon=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._server = server
        self._pid = pid.to_bytes(4, "big")

    def run(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            behind = socket.create_connection(self._server)
            threading.Thread(
                target=self._up, args=(client, behind), daemon=True
            ).start()
            threading.Thread(
                target=self._down, args=(client, behind), daemon=True
            ).start()

    def _up(self, client, behind):
        while data := _received(client):
            behind.sendall(data)
        behind.close()

    def _down(self, client, behind):
        while data := _received(behind):
            place = data.find(b"K\0\0\0\x0c")  # BackendKeyData
            if place >= 0:
                data = data[: place + 5] + self._pid + data[place + 9 :]
            try:
                client.sendall(data)
            except OSError:
                break
        client.close()

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _received(end):
    try:
        return end.recv(1 << 16)
    except OSError:
        return b""


def test_a_socket_whose_process_ids_are_made_up_is_seen_through(
    make_engine, pg, pg_url, observer, tmp_path
):
    """Over a unix socket a row has no port, and the victim's looks as ours would."""
    at = pg_url("psycopg", unix=True).set(drivername="postgresql")
    with closing(
        psycopg.connect(at.render_as_string(hide_password=False), autocommit=True)
    ) as victim:
        pid = victim.info.backend_pid
        liar = _Liar(f"{tmp_path}/.s.PGSQL.5432", (pg.host, pg.port), pid)
        liar.start()
        with closing(liar):
            url = pg_url("psycopg2").set(
                host=None,
                port=5432,
                query={"host": str(tmp_path), "application_name": APPLICATION_NAME},
            )
            engine = make_engine(url, end_stranded_backends=True)
            own = _settle(engine, recognised=False)
            with engine.connect() as connection:
                assert (
                    connection.connection.driver_connection.info.backend_pid
                    == pid
                    != own
                )
                _strand(connection)
            eventually(lambda: engine.pool.stats().stranded == {"unrecognised": 1})
            assert victim.execute("select 1").fetchone() == (1,)
            observer.end(own)


@pytest.mark.skipif(not os.access(LAST_PID, os.W_OK), reason="only root chooses pids")
@pytest.mark.quick("psycopg2")
def test_a_process_id_that_was_given_away_again_is_another_s(ending, observer, pg_url):
    engine = ending()
    pid = _settle(engine)
    with engine.connect() as connection:
        connection.execute(text("select 1"))
        observer.terminate(pid)
        heir = _connected_as(pid, pg_url("psycopg"))
        with closing(heir):
            with pytest.raises(exc.DBAPIError):
                connection.execute(text("select 1"))
            eventually(lambda: engine.pool.stats().stranded == {"gone": 1})
            assert heir.execute("select pg_backend_pid()").fetchone() == (pid,)


@pytest.fixture
def crowded(observer):
    """Make a role that may have one session, and nobody else's."""
    role = f"crowded_{os.getpid()}"
    observer.rows(f"create role {role} login connection limit 1")
    yield role
    observer.rows(f"drop role {role}")


@pytest.mark.alone  # it turns back the counter of process ids for the whole machine
@pytest.mark.skipif(not os.access(LAST_PID, os.W_OK), reason="only root chooses pids")
def test_an_heir_that_came_before_the_look_is_another(
    make_engine, observer, pg_url, crowded
):
    """Over a unix socket its row differs in nothing but its age."""
    url = pg_url("psycopg2", unix=True).set(username=crowded)
    engine = make_engine(url, end_stranded_backends=True)
    connection = engine.connect()
    entry = connection.connection._connection_record
    pid = connection.connection.driver_connection.info.backend_pid
    time.sleep(0.3)  # the control plane is not let in, and tries again in a second
    assert entry.backend.is_recognised is None
    observer.rows(f"alter role {crowded} connection limit -1")
    # Not to wait for its end: the server looks for that ten times a second.
    observer.rows("select pg_terminate_backend(%s)", pid)
    heir = _connected_as(pid, pg_url("psycopg", unix=True).set(username=crowded))
    with closing(heir):
        assert entry.backend.is_recognised is None
        eventually(lambda: entry.backend.is_recognised is not None)
        assert not entry.backend.is_recognised
    connection.invalidate()
    connection.close()
    eventually(lambda: not _of_role(observer, crowded), what="the end of its sessions")


def _of_role(observer, role):
    return observer.rows("select pid from pg_stat_activity where usename = %s", role)


def _connected_as(pid, url):
    """Connect until the server has given the session this process id."""
    at = url.set(drivername="postgresql").render_as_string(hide_password=False)
    for _ in range(200):
        LAST_PID.write_text(str(pid - 1))
        connection = psycopg.connect(at, autocommit=True)
        if connection.info.backend_pid == pid:
            return connection
        connection.close()
    pytest.fail(f"process id {pid} was not given again")


@pytest.mark.quick("psycopg2")
def test_a_child_ends_nothing_of_its_parent(ending):
    engine = ending()
    pid = _settle(engine)
    connection = engine.connect()

    def child():
        with pytest.raises(exc.DBAPIError):
            connection.execute(text("select 1"))
        connection.invalidate(RuntimeError())
        assert engine.pool.stats().stranded == {}

    run_in_fork(child).assert_silent()
    assert connection.scalar(text("select pg_backend_pid()")) == pid
    connection.close()


@pytest.mark.quick("psycopg2")
def test_a_process_that_ends_does_not_leave_it_behind(pg_url, driver, observer):
    """Most of all when it ends because of the error: its locks would stay."""
    done = run_script(
        """
        import sys
        import poolproof
        from sqlalchemy import create_engine, text
        from plugins.threads import eventually

        engine = create_engine(
            sys.argv[1], poolclass=poolproof.Pool, end_stranded_backends=True
        )
        with engine.connect() as connection:
            entry = connection.connection._connection_record
            eventually(lambda: entry.backend.is_recognised)
            print(connection.scalar(text("select pg_backend_pid()")), flush=True)
            with poolproof.deadline(0.3):
                connection.execute(text("select pg_sleep(60)"))
        """,
        pg_url(driver).render_as_string(hide_password=False),
    )
    assert "DeadlineExceeded" in done.stderr
    assert "ended when its statement was cancelled" in done.stderr
    assert not _is_there(observer, int(done.stdout))


def test_bad_input(pg_url):
    url = pg_url("psycopg2")
    with pytest.raises(exc.ArgumentError, match="end_stranded_backends"):
        create_engine(url, poolclass=poolproof.Pool, end_stranded_backends="yes")


def test_what_cannot_be_known_is_refused_before_anything_connects(pg_url):
    def create():
        pytest.fail("connected")

    with pytest.raises(exc.ArgumentError, match=r"end_stranded_.*control_dsn"):
        create_engine(
            pg_url("psycopg2"),
            creator=create,
            poolclass=poolproof.Pool,
            end_stranded_backends=True,
        )


def test_a_server_that_cannot_be_asked_is_named(ending, pg_url, caplog, observer):
    caplog.set_level(logging.WARNING, "poolproof.stranded")
    dsn = pg_url("psycopg2").set(username="nobody", password="s3cret")  # noqa: S106
    engine = ending(control_dsn=dsn.render_as_string(hide_password=False))
    pid = _settle(engine, recognised=False)
    with engine.connect() as connection:
        _strand(connection)
    eventually(lambda: engine.pool.stats().stranded == {"failed": 1})
    (said,) = _said(caplog)
    assert "nobody" in said
    assert "s3cret" not in said
    assert _is_there(observer, pid)


@pytest.mark.quick("psycopg2")
def test_a_connection_that_was_only_just_opened_counts_too(ending, observer):
    engine = ending()

    def cancelled():
        return engine.pool.stats().stranded.get("cancelled")

    for limit in (0.02, 0.1, 0.5, 2.5):
        connection = engine.connect()
        with poolproof.deadline(limit), pytest.raises(exc.DBAPIError):
            connection.execute(SLEEP)
        connection.close()
        eventually(lambda: cancelled() or not observer.backends())
        if cancelled():
            break
        # The machine is busy: the statement had not reached the server by then.
    eventually(cancelled)


@pytest.mark.quick("psycopg2")
def test_control_dsn_says_where_the_server_is(pg_url, ending, observer, caplog):
    secret = "s3cret"  # noqa: S105
    dsn = pg_url("psycopg2").set(password=secret).render_as_string(hide_password=False)
    engine = ending(control_dsn=dsn)
    assert secret not in repr(engine.pool.settings)
    _settle(engine)
    with engine.connect() as connection:
        _strand(connection)
    eventually(lambda: engine.pool.stats().stranded == {"cancelled": 1})
    assert secret not in caplog.text
    for wrong in (5, "", "mysql://h/d"):
        with pytest.raises(exc.ArgumentError, match="control_dsn") as caught:
            ending(control_dsn=wrong)
        assert secret not in str(caught.value)
