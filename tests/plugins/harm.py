"""A proxy that puts bytes into answers, and small helpers of the fault tests."""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import struct
import threading
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from plugins.cluster import APPLICATION_NAME
from plugins.threads import Task, eventually
from poolproof.fork import sockets

if TYPE_CHECKING:
    from collections.abc import Callable

    from plugins.server import Observer


class Proxy:
    """Forwards to a server, and puts bytes before its next answer when told to.

    Args:
        address: Host and port of the server.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._stray: bytes | None = None
        self._reset = False
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def inject(self, stray: bytes) -> None:
        """Put *stray* before whatever the server says next, in the same segment."""
        self._stray = stray

    def reset(self) -> None:
        """Reset the connection (RST, not FIN) when its client next sends anything."""
        self._reset = True

    def cut(self) -> None:
        """End every connection."""
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End everything."""
        with contextlib.suppress(OSError):  # closed before
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(20)  # whom it has taken is in the lists then
        self.cut()
        for thread in self._threads:
            thread.join(5)
        self._listener.close()
        for each in self._sockets:
            each.close()

    def _run(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                server = socket.create_connection(self._address)
                self._sockets.append(server)
                self._run(self._pump, client, server, False)
                self._run(self._pump, server, client, True)

    def _pump(self, source: socket.socket, sink: socket.socket, down: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if down and self._stray is not None:
                    data, self._stray = self._stray + data, None
                if not down and self._reset:
                    self._reset = False
                    linger = struct.pack("ii", 1, 0)
                    source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    source.close()
                    break
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def message(kind: bytes, body: bytes = b"") -> bytes:
    """Return one message of the protocol, whole."""
    return kind + struct.pack("!i", len(body) + 4) + body


def driver_connections(engine: sa.Engine, count: int) -> list[object]:
    """Check *count* connections out together and in again; return the drivers' own."""
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(engine.connect()) for _ in range(count)]
        return [each.connection.driver_connection for each in opened]


def struck(
    observer: Observer, handler: Callable[..., object], action: Callable[[], object]
) -> BaseException:
    """Return what *action* raises; a signal comes while a statement of it sleeps.

    Args:
        observer: Sees when a statement of the tests' sessions sleeps.
        handler: What the signal calls, in this thread.
        action: Has the server sleep, for half a second or longer.
    """

    def sleeping() -> set[tuple[object, ...]]:
        return set(
            observer.rows(
                "select pid, query_start from pg_stat_activity "
                "where wait_event = 'PgSleep' and application_name = %s",
                APPLICATION_NAME,
            )
        )

    # A server goes on with what an earlier test has interrupted.
    others = sleeping()

    def strike() -> None:
        eventually(lambda: sleeping() - others, what="a statement that sleeps")
        signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, handler)  # type: ignore[arg-type]
    striking = Task(strike)
    try:
        action()
    except BaseException as error:
        return error
    finally:
        striking.result()
        signal.signal(signal.SIGALRM, before)
    pytest.fail("nothing was raised")


def pid_of(connection: sa.Connection) -> int:
    """Ask the server for the number of a connection's backend."""
    return int(connection.execute(sa.text("select pg_backend_pid()")).scalar_one())


def wait_for_the_end(connection: sa.Connection) -> None:
    """Wait until the server has closed its end of the socket.

    A question that is sent before is lost with it, and its asker hears of a reset in
    place of the server's word; what pg8000 makes of that no pool of SQLAlchemy's knows.
    """
    number = sockets.descriptor(connection.connection.driver_connection)
    assert number is not None
    ended = select.poll()
    ended.register(number, select.POLLRDHUP)
    assert ended.poll(60_000)


def first_error(action: Callable[[], object]) -> BaseException:
    """Return what *action* raises; fail when it raises nothing."""
    try:
        action()
    except Exception as error:
        return error
    pytest.fail("nothing was raised")
