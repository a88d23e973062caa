"""Socket options, descriptors, and numbers that somebody else has taken over."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import stat
import tempfile
import time
from pathlib import Path

import pytest
from sqlalchemy import exc, text

from plugins.processes import run_in_fork
from plugins.threads import eventually
from plugins.wire import message
from poolproof import _native
from poolproof.drivers.base import Driver
from poolproof.fork import sockets

LIBPQ = pytest.mark.parametrize("driver", ["psycopg2", "psycopg"], indirect=True)
TCP = socket.IPPROTO_TCP
ROWS = 16_000  # of a kilobyte each


def option(connection, level: int, name: int) -> int:
    number = sockets.descriptor(connection)
    with socket.socket(fileno=os.dup(number)) as copy:
        return copy.getsockopt(level, name)


def descriptors() -> set[int]:
    """Return what is open in this process, and the listing's own number."""
    return {int(path.name) for path in Path("/proc/self/fd").iterdir()}


def is_socket(number: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(number).st_mode)
    except OSError:  # the listing's own
        return False


def keep_alives(raw) -> tuple[int, ...]:
    return (
        option(raw.dbapi_connection, socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        option(raw.dbapi_connection, TCP, socket.TCP_KEEPIDLE),
        option(raw.dbapi_connection, TCP, socket.TCP_KEEPINTVL),
        option(raw.dbapi_connection, TCP, socket.TCP_KEEPCNT),
    )


@pytest.fixture
def fresh() -> tuple[int, ...]:
    """Return the system's own keep-alive values."""
    with socket.socket() as one:
        names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        return tuple(one.getsockopt(TCP, name) for name in names)


def test_every_connection_has_keep_alives(make_engine, pg_url, driver):
    raw = make_engine(pg_url(driver)).raw_connection()
    assert keep_alives(raw) == (1, 30, 10, 6)
    raw.close()


def test_keep_alives_can_be_changed(make_engine, pg_url, driver):
    raw = make_engine(pg_url(driver), keep_alive=(7, 8, 9)).raw_connection()
    assert keep_alives(raw) == (1, 7, 8, 9)
    raw.close()


def test_keep_alives_can_be_left_to_the_system(make_engine, pg_url, driver, fresh):
    raw = make_engine(pg_url(driver), keep_alive=None).raw_connection()
    assert keep_alives(raw)[1:] == fresh
    raw.close()


@LIBPQ
def test_keep_alives_of_the_driver_win(make_engine, pg_url, driver):
    chosen = {"keepalives_idle": 77, "keepalives_count": 4}
    raw = make_engine(pg_url(driver), connect_args=chosen).raw_connection()
    assert keep_alives(raw) == (1, 77, 10, 4)
    raw.close()


def test_keep_alives_that_the_driver_was_told_to_leave_stay_off(
    make_engine, pg_url, driver
):
    off = {"tcp_keepalive": False} if driver == "pg8000" else {"keepalives": 0}
    raw = make_engine(pg_url(driver), connect_args=off).raw_connection()
    assert keep_alives(raw)[0] == 0
    raw.close()


def user_timeout(connection) -> int:
    return option(connection, TCP, socket.TCP_USER_TIMEOUT)


def test_user_timeout_is_set_for_the_pools_own_calls_alone(
    make_engine, pg_url, driver, monkeypatch
):
    engine = make_engine(pg_url(driver), pool_pre_ping="always", ping_timeout=1.5)
    engine.raw_connection().close()
    seen = []

    really = Driver.ask

    def ask(driver, connection):
        seen.append(user_timeout(connection))
        return really(driver, connection)

    monkeypatch.setattr(Driver, "ask", ask)
    raw = engine.raw_connection()
    assert seen == [1500]
    assert user_timeout(raw.dbapi_connection) == 0
    raw.close()


@pytest.fixture
def tcp():
    """Make TCP connections to nobody in particular."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield lambda: stack.enter_context(
            socket.create_connection(listener.getsockname())
        )


@pytest.fixture
def chosen(tcp):
    """Make a connection whose owner has set the option."""
    other = tcp()
    other.setsockopt(TCP, socket.TCP_USER_TIMEOUT, 7000)
    return other


def test_user_timeout_is_not_taken_from_who_got_the_number_within_a_call(tcp, chosen):
    ours = tcp()
    watched = _native.Socket(ours.fileno())
    watched.arm(_native.CALL, 5)
    os.dup2(chosen.fileno(), ours.fileno())
    watched.disarm(_native.CALL)
    assert chosen.getsockopt(TCP, socket.TCP_USER_TIMEOUT) == 7000


def test_user_timeout_is_not_given_to_who_got_every_number(tcp, chosen):
    """As after a daemoniser has closed all of them."""
    ours = tcp()
    before = set(filter(is_socket, descriptors()))
    watched = _native.Socket(ours.fileno())
    (duplicate,) = set(filter(is_socket, descriptors())) - before
    for number in (ours.fileno(), duplicate):
        os.dup2(chosen.fileno(), number)
    watched.arm(_native.CALL, 5)
    watched.disarm(_native.CALL)
    assert chosen.getsockopt(TCP, socket.TCP_USER_TIMEOUT) == 7000
    watched.end()
    os.close(duplicate)


def test_user_timeout_can_be_set_for_every_call(make_engine, pg_url, driver):
    raw = make_engine(pg_url(driver), tcp_user_timeout=3).raw_connection()
    assert user_timeout(raw.dbapi_connection) == 3000
    raw.close()


@LIBPQ
def test_user_timeout_of_the_driver_wins(make_engine, pg_url, driver):
    engine = make_engine(
        pg_url(driver),
        connect_args={"tcp_user_timeout": 4321},
        tcp_user_timeout=3,
        pool_pre_ping="always",
    )
    for _ in range(2):
        raw = engine.raw_connection()
        assert user_timeout(raw.dbapi_connection) == 4321
        raw.close()


@pytest.mark.parametrize("driver", ["psycopg2"], indirect=True)
def test_copy_into_a_slow_trigger_lives_by_default_and_dies_with_a_user_timeout(
    make_engine, pg_url, driver, observer, table
):
    """Why `TCP_USER_TIMEOUT` is not set for every call."""
    observer.rows(
        f"create function slow_{table}() returns trigger language plpgsql as "
        "$$ begin if new.n = 1 then perform pg_sleep(1.5); end if; return new; end $$"
    )
    observer.rows(
        f"create trigger slow before insert on {table} for each row "
        f"execute function slow_{table}()"
    )

    class Rows:
        """More bytes than every buffer between here and there holds."""

        def __init__(self) -> None:
            self.lines = iter([1, *[2] * (ROWS - 1)])

        def read(self, _: int = -1) -> str:
            lines = itertools.islice(self.lines, 8)
            return "".join(f"{n:01000}\n" for n in lines)

    def copy(**options) -> int:
        raw = make_engine(pg_url(driver), **options).raw_connection()
        try:
            raw.dbapi_connection.set_client_encoding("UTF8")
            cursor = raw.cursor()
            cursor.copy_expert(f"copy {table} from stdin", Rows())
            return cursor.rowcount
        finally:
            raw.close()

    try:
        assert copy() == ROWS
        with pytest.raises(Exception, match=r"closed|timed out|timeout"):
            copy(tcp_user_timeout=0.5)
    finally:
        observer.rows(f"drop table {table}; drop function slow_{table}()")


def test_one_duplicate_a_connection_and_none_is_left(make_engine, pg_url, driver):
    engine = make_engine(pg_url(driver), pool_size=3)
    engine.connect().close()
    before = len(descriptors())
    held = [engine.connect() for _ in range(3)]
    assert len(descriptors()) == before + 4  # two connections more
    for one in held:
        one.close()
    engine.dispose()
    assert len(descriptors()) == before - 2


def test_duplicate_is_not_given_to_programs(make_engine, pg_url, driver):
    engine = make_engine(pg_url(driver))
    before = descriptors()
    raw = engine.raw_connection()
    after = descriptors()
    number = sockets.descriptor(raw.dbapi_connection)
    ours = [one for one in after - before if one != number]
    duplicates = []
    for one in ours:
        try:
            os.fstat(one)
        except OSError:
            continue  # the listing's own
        duplicates.append(one)
    assert len(duplicates) == 1
    assert not os.get_inheritable(duplicates[0])
    raw.close()


@LIBPQ
@pytest.mark.parametrize("kind", ["file", "socket"])
def test_foreign_file_with_the_number_of_a_closed_connection_is_left_alone(
    make_engine, pg_url, driver, kind
):
    engine = make_engine(pg_url(driver), hold_timeout=1, reset_timeout=1)
    raw = engine.raw_connection()
    number = sockets.descriptor(raw.dbapi_connection)
    raw.dbapi_connection.close()  # behind the pool's back
    with contextlib.ExitStack() as stack:
        if kind == "file":
            foreign = stack.enter_context(tempfile.TemporaryFile()).fileno()
        else:
            ours, peers = map(stack.enter_context, socket.socketpair())
            foreign = ours.fileno()
        if foreign != number:
            os.dup2(foreign, number)
        before = os.fstat(number)

        def child():
            return os.path.sameopenfile(number, foreign)

        report = run_in_fork(child)
        report.assert_silent()
        assert report.result is True
        time.sleep(1.2)  # the deadline passes
        raw.close()
        assert os.fstat(number).st_ino == before.st_ino
        assert os.write(number, b"still here") == 10
        if kind == "socket":
            assert peers.recv(100) == b"still here"
        if foreign != number:
            os.close(number)
    with engine.connect() as connection:
        assert connection.scalar(text("select 1")) == 1


@LIBPQ
def test_no_descriptor_left_is_an_error_that_loses_no_slot(make_engine, pg_url, driver):
    import resource

    engine = make_engine(pg_url(driver))
    engine.connect().close()
    engine.dispose()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(descriptors()) + 40, hard))
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            os.close(taken.pop())  # room for the connection and not for its duplicate
        with pytest.raises((OSError, exc.OperationalError)):
            engine.connect()
    finally:
        for one in taken:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert engine.pool.checkedout() == 0
    with engine.connect() as connection:
        assert connection.scalar(text("select 1")) == 1


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"], indirect=True)
def test_options_of_a_socket_that_reused_the_number_stay(proxied, driver):
    engine = proxied()
    raw = engine.raw_connection()
    raw.cursor().execute("select 1")
    number = sockets.descriptor(raw.dbapi_connection)
    with socket.create_server(("127.0.0.1", 0)) as server:
        raw.dbapi_connection.close()  # behind the pool's back
        with socket.create_connection(server.getsockname()) as mine:
            peer, _ = server.accept()
            assert mine.fileno() == number
            mine.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 7777)
            raw.close()
            left = mine.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            assert left == 7777
            with peer:
                peer.sendall(b"x")
            assert mine.recv(1) == b"x"


def test_socket_that_was_shut_is_dead_whatever_can_still_be_read():
    """What arrived before the deadline passed would look like rest."""
    ours, peer = socket.socketpair()
    with ours, peer:
        watched = _native.Socket(ours.fileno())
        peer.sendall(message(b"N", b"SNOTICE\0C00000\0Mhello\0\0"))
        assert watched.probe() is None
        watched.arm(_native.CALL, 0.0)
        eventually(lambda: watched.expired is not None)
        assert watched.probe() == "dead"
        watched.end()
