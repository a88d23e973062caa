"""Ctrl-C, a handler's exception and a greenlet's kill arrive while a server works."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time

import pytest

from plugins.harm import struck
from plugins.threads import eventually
from poolproof._native import WireError


class SoftTimeLimitError(Exception):
    pass


def raises(error):
    def handler(*_):
        raise error

    return handler


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SoftTimeLimitError()])
def test_a_signal_arrives_and_the_statement_is_cancelled(error, wire, observer):
    found = struck(
        observer, raises(error), lambda: wire.execute("select pg_sleep(600)")
    )
    assert found is error
    assert wire.closed
    with pytest.raises(WireError):
        wire.execute("select 1")
    # Not only the socket: the backend does not sleep on.
    assert observer.wait_for_backends(0) == []


def test_a_socket_that_others_have_not_block_is_waited_for_all_the_same(wire):
    # As libuv does with each descriptor that it is to watch.
    os.set_blocking(wire.fileno(), False)
    began, used = time.monotonic(), time.process_time()
    assert wire.execute("select pg_sleep(1), 7").rows[0][1] == 7
    took, spent = time.monotonic() - began, time.process_time() - used
    assert spent < took / 2


def test_the_number_of_an_interrupted_connections_socket_is_free_at_once(
    wire, observer
):
    def inode(number):
        with contextlib.suppress(OSError):
            return os.fstat(number).st_ino
        return None

    number = wire.fileno()
    its = inode(number)
    left = []

    def ask():
        try:
            wire.execute("select pg_sleep(600)")
        finally:
            left.append(inode(number))

    assert isinstance(
        struck(observer, raises(SoftTimeLimitError()), ask), SoftTimeLimitError
    )
    # What severs or closes under that number meets nothing that is cancelled aside.
    assert left != [its]
    assert observer.wait_for_backends(0) == []


def test_a_signal_whose_handler_raises_nothing_changes_nothing(wire, observer):
    heard = []

    def ask():
        assert wire.execute("select pg_sleep(1), 7").rows[0][1] == 7
        raise SoftTimeLimitError

    found = struck(observer, lambda *_: heard.append(1), ask)
    assert isinstance(found, SoftTimeLimitError)
    assert heard == [1]
    assert not wire.closed


@pytest.mark.alone
def test_an_interruption_takes_no_longer_than_one_of_a_sleep(wire, observer):
    times = []

    def late(action):
        sent = []

        def strike():
            time.sleep(0.3)
            sent.append(time.monotonic())
            signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)

        before = signal.signal(signal.SIGALRM, raises(SoftTimeLimitError()))
        thread = threading.Thread(target=strike)
        thread.start()
        try:
            with pytest.raises(SoftTimeLimitError):
                action()
            times.append(time.monotonic() - sent[0])
        finally:
            thread.join()
            signal.signal(signal.SIGALRM, before)

    late(lambda: time.sleep(600))
    late(lambda: wire.execute("select pg_sleep(600)"))
    assert times[1] < times[0] + 0.1
    assert observer.wait_for_backends(0) == []


def test_another_way_of_waiting_is_asked_and_may_end_it(make_wire, observer):
    asked = []

    def wait(fd, writing, timeout_s):
        asked.append(writing)
        ready = select.select(
            [] if writing else [fd], [fd] if writing else [], [], timeout_s
        )
        return any(ready)

    wire = make_wire(wait=wait)
    text = "x" * 20_000_000
    # A server that reads whenever the writer is paused leaves it nothing to wait for.
    for _ in range(20):
        assert wire.execute("select $1::text", [text], wait=wait).rows == [(text,)]
        if asked.count(True) > 1:
            break
    assert asked.count(False) > 1
    assert asked.count(True) > 1

    asleep = (
        "select 1 from pg_stat_activity where state = 'active' "
        "and pid <> pg_backend_pid() and position('sleep(600)' in query) > 0"
    )

    def killed(*_):
        # A server that has not begun yet would not hear that it is to end it.
        eventually(lambda: observer.rows(asleep))
        raise SoftTimeLimitError

    with pytest.raises(SoftTimeLimitError):
        wire.execute("select pg_sleep(600)", wait=killed)
    assert wire.closed
    assert observer.wait_for_backends(0) == []


def test_an_exception_of_a_loader_comes_after_the_answer_was_read(wire):
    def fail(_):
        raise SoftTimeLimitError

    with pytest.raises(SoftTimeLimitError):
        wire.execute(
            "select '{}'::json from generate_series(1, 1000)", loaders={114: fail}
        )
    assert wire.execute("select 1").rows == [(1,)]


def test_a_loader_cannot_use_the_connection(wire):
    found = []

    def again(_):
        try:
            wire.execute("select 1")
        except WireError as error:
            found.append(error.kind)
        return "x"

    assert wire.execute("select '{}'::json", loaders={114: again}).rows == [("x",)]
    assert found == ["busy"]


class Holding:
    """A proxy that keeps what its first client sends until it is let go."""

    def __init__(self, address):
        self._address = address
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.holds = threading.Event()
        self.go = threading.Event()
        self.clients = 0
        self._threads = []
        self._sockets = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._address)
                self._sockets += [client, server]
                is_first = not self._threads
                for pair in ((client, server, is_first), (server, client, False)):
                    thread = threading.Thread(target=self._pump, args=pair, daemon=True)
                    thread.start()
                    self._threads.append(thread)
                self.clients += 1

    def _pump(self, source, sink, is_held):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if is_held and self.holds.is_set():
                    self.go.wait(60)
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def close(self):
        self.go.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(20)
        self._listener.close()
        for thread in self._threads:
            thread.join(20)
        for each in self._sockets:
            each.close()


def test_a_statement_that_comes_after_its_cancelling_is_cancelled(
    make_wire, pg, observer
):
    proxy = Holding(("127.0.0.1", pg.port))
    wire = make_wire(port=proxy.port, sslmode="disable")

    def killed(*_):
        raise SoftTimeLimitError

    proxy.holds.set()
    with pytest.raises(SoftTimeLimitError):
        wire.execute("select pg_sleep(600)", wait=killed)
    # The first request to cancel has gone by.
    eventually(lambda: proxy.clients > 1)
    eventually(lambda: proxy.clients > 2)
    proxy.go.set()
    assert observer.wait_for_backends(0) == []
    proxy.close()
