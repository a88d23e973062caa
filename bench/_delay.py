"""A network of so much delay: a proxy in a process of its own that holds each byte."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
import time

__all__ = ["Delay"]

CHUNK = 1 << 16
ENOUGH = 64


class Delay:
    """Passes bytes on after a time, each way, as many at once as have come.

    Args:
        port: Where the server listens, on the loopback address.
        seconds: How long a byte takes, in each direction.

    Attributes:
        port: Where this listens.
    """

    def __init__(self, port: int, seconds: float) -> None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=ENOUGH)
        self.port: int = listener.getsockname()[1]
        self._life, theirs = os.pipe()[::-1]
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._life)
            _serve(listener, port, seconds, theirs)
        os.close(theirs)
        listener.close()

    def close(self) -> None:
        """End the process."""
        os.close(self._life)
        os.waitpid(self._pid, 0)


def _serve(listener: socket.socket, port: int, seconds: float, life: int) -> None:
    # What is measured runs on the last one.
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setaffinity(0, set(range(os.cpu_count() or 1)))
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    def accept() -> None:
        while True:
            client, _ = listener.accept()
            server = socket.create_connection(("127.0.0.1", port))
            for one, other in ((client, server), (server, client)):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                come: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
                for work in ((_receive, one, come, seconds), (_send, other, come)):
                    threading.Thread(target=work[0], args=work[1:], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    os.read(life, 1)  # until the benchmark has ended, however it did
    os._exit(0)


def _receive(
    source: socket.socket, come: queue.SimpleQueue[tuple[float, bytes]], seconds: float
) -> None:
    data = b"."
    while data:
        try:
            data = source.recv(CHUNK)
        except OSError:
            data = b""
        come.put((time.monotonic() + seconds, data))


def _send(target: socket.socket, come: queue.SimpleQueue[tuple[float, bytes]]) -> None:
    while True:
        due, data = come.get()
        left = due - time.monotonic()
        if left > 0:
            time.sleep(left)
        try:
            if not data:
                target.shutdown(socket.SHUT_WR)
                return
            target.sendall(data)
        except OSError:
            return
