"""A descriptor that was closed beside its driver: nothing of ours reaches its heir."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import tempfile
import weakref

import pytest
from sqlalchemy import exc, text

import poolproof
from plugins.leaks import let_go_of_log_records
from plugins.threads import Task
from poolproof.drivers import known
from poolproof.fork import sockets

INSERT = "insert into {} values (1)"
ALIVE = text("select 1")


class Heir:
    """Takes a number over from a connection, and shows what is written there."""

    def __init__(self, kind: str, stack: contextlib.ExitStack) -> None:
        if kind == "file":
            made = tempfile.TemporaryFile()  # noqa: SIM115 - the stack closes it
            self._opened = stack.enter_context(made)
        else:
            self._opened, self._peer = socket.socketpair()
            stack.enter_context(self._opened)
            stack.enter_context(self._peer)
            listening = Task(self._hang_up_when_spoken_to)
            stack.callback(listening.result)
            stack.callback(self._peer.shutdown, socket.SHUT_RD)
        self._kind = kind
        self._stack = stack

    def take(self, connection: object) -> None:
        self.number = sockets.descriptor(connection)
        assert self.number is not None
        os.close(self.number)
        os.dup2(self._opened.fileno(), self.number)
        self._stack.callback(os.close, self.number)  # fails where it is not there

    def _hang_up_when_spoken_to(self) -> None:
        """Keep nobody waiting for an answer: what was said is to be seen."""
        if self._peer.recv(1, socket.MSG_PEEK):
            self._peer.shutdown(socket.SHUT_WR)

    @property
    def is_there(self) -> bool:
        return os.path.sameopenfile(self.number, self._opened.fileno())

    @property
    def written(self) -> bytes:
        if self._kind == "file":
            return os.pread(self._opened.fileno(), 1000, 0)
        with contextlib.suppress(BlockingIOError):
            return self._peer.recv(1000, socket.MSG_DONTWAIT | socket.MSG_PEEK)
        return b""


@pytest.fixture(params=["file", "socket"])
def heir(request):
    """Have a file or a socket ready."""
    with contextlib.ExitStack() as stack:
        yield Heir(request.param, stack)


@pytest.fixture
def spared(heir, observer):
    """Say whether the heir had its peace, and the pool has got over it."""

    def check(engine, discarded: int = 1) -> None:
        gc.collect()
        assert heir.written == b""
        assert heir.is_there
        assert engine.pool.checkedout() == 0
        if discarded:
            assert engine.pool.stats().discarded == {"foreign": discarded}
        assert observer.wait_for_backends(0) == []
        with engine.connect() as connection:
            assert connection.scalar(ALIVE) == 1
        assert heir.written == b""

    return check


def test_rollback_at_checkin(
    make_engine, pg_url, driver, heir, spared, observer, table, faults_seen
):
    engine = make_engine(pg_url(driver))
    raw = engine.raw_connection()
    raw.cursor().execute(INSERT.format(table))
    heir.take(raw.dbapi_connection)
    raw.close()
    spared(engine)
    assert observer.value(f"select count(*) from {table}") == 0
    assert poolproof.Fault.CORRUPTION in {one.fault for one in faults_seen}


def test_rollback_of_the_holders_own(make_engine, pg_url, driver, heir, spared, table):
    engine = make_engine(pg_url(driver))
    with engine.connect() as connection:
        connection.exec_driver_sql(INSERT.format(table))
        heir.take(connection.connection.dbapi_connection)
        with pytest.raises(exc.OperationalError, match="closerange") as caught:
            connection.rollback()
        assert caught.value.connection_invalidated
        assert "nothing was sent" in str(caught.value)
    spared(engine)


def test_rollback_of_a_detached_connection(
    make_engine, pg_url, driver, heir, spared, table
):
    engine = make_engine(pg_url(driver))
    raw = engine.raw_connection()
    raw.cursor().execute(INSERT.format(table))
    raw.detach()
    heir.take(raw.dbapi_connection)
    raw.close()
    spared(engine, discarded=0)


def test_commit_at_checkin(make_engine, pg_url, driver, heir, spared, observer, table):
    engine = make_engine(pg_url(driver), pool_reset_on_return="commit")
    raw = engine.raw_connection()
    raw.cursor().execute(INSERT.format(table))
    heir.take(raw.dbapi_connection)
    raw.close()
    spared(engine)
    assert observer.value(f"select count(*) from {table}") == 0


def test_transaction_that_nothing_resets(
    make_engine, pg_url, driver, heir, spared, table
):
    engine = make_engine(pg_url(driver), pool_reset_on_return=None)
    raw = engine.raw_connection()
    raw.cursor().execute(INSERT.format(table))
    heir.take(raw.dbapi_connection)
    raw.close()
    spared(engine)


def test_ping_at_checkout(make_engine, pg_url, driver, heir, spared):
    engine = make_engine(pg_url(driver), ping_idle_after=0)
    raw = engine.raw_connection()
    held = raw.dbapi_connection
    raw.close()
    heir.take(held)
    with engine.connect() as connection:
        assert connection.connection.dbapi_connection is not held
        assert connection.scalar(ALIVE) == 1
    assert engine.pool.stats().discarded == {"foreign": 1}
    engine.dispose()
    del held
    spared(engine, discarded=0)


def test_closing_what_rests(make_engine, pg_url, driver, heir, spared):
    engine = make_engine(pg_url(driver))
    raw = engine.raw_connection()
    held = raw.dbapi_connection
    raw.close()
    heir.take(held)
    engine.dispose()
    del held, raw
    spared(engine, discarded=0)


def test_closing_after_an_error(make_engine, pg_url, driver, heir, spared):
    """What its holder sends is not looked at; what the pool does after that, is."""
    engine = make_engine(pg_url(driver))
    raw = engine.raw_connection()
    heir.take(raw.dbapi_connection)
    raw.invalidate(OSError("what the holder got to see"))
    raw.close()
    spared(engine)


def test_number_that_nobody_has_taken_yet(make_engine, pg_url, driver, table, observer):
    engine = make_engine(pg_url(driver))
    raw = engine.raw_connection()
    raw.cursor().execute(INSERT.format(table))
    number = sockets.descriptor(raw.dbapi_connection)
    os.close(number)
    raw.close()
    assert engine.pool.stats().discarded == {"foreign": 1}
    observer.wait_for_backends(0)
    with engine.connect() as connection:
        assert sockets.descriptor(connection.connection.dbapi_connection) == number
        gc.collect()
        assert connection.scalar(ALIVE) == 1
    assert len(observer.backends()) == 1


def test_connection_that_the_driver_has_closed_is_let_go(
    make_engine, pg_url, driver, caplog
):
    """Only what would write to a foreign number is kept from its destructor."""
    engine = make_engine(pg_url(driver))
    raw = engine.raw_connection()
    dead = weakref.ref(raw.dbapi_connection)
    raw.dbapi_connection.close()
    raw.close()
    del raw
    let_go_of_log_records(caplog)
    gc.collect()
    assert dead() is None
    assert "foreign" not in engine.pool.stats().discarded


def test_severed_connection_is_let_go(make_engine, pg_url, driver):
    engine = make_engine(pg_url(driver))
    raw = engine.raw_connection()
    dead = weakref.ref(raw.dbapi_connection)
    raw._connection_record.socket.sever()
    raw.close()
    del raw
    gc.collect()
    assert dead() is None
    assert "foreign" not in engine.pool.stats().discarded


def test_driver_of_another_database_may_have_connected_anew(make_engine):
    class Driver:
        """As the MySQL drivers show their socket."""

        def __init__(self, sock: socket.socket) -> None:
            self._sock = sock

    ours, peer = socket.socketpair()
    with ours, peer:
        connection = Driver(ours)
        driver = known.of(connection, None)
        sockets.watch(connection, driver, keep_alive=None, tcp_user_timeout=None)
        os.dup2(peer.fileno(), ours.fileno())
        assert not sockets.find(connection).intact
        assert not sockets.is_foreign(connection)
        sockets.unwatch(connection)
