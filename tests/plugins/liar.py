"""A server that lets everybody in, and then says what no server says.

`plugins.lying` lies about TLS and passwords; this one about everything behind them.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from plugins.wire import message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["LET_IN", "READY", "Liar", "columns", "peak", "row"]

READY = message(b"Z", b"I")
LET_IN = (
    message(b"R", struct.pack("!i", 0))
    + message(b"S", b"client_encoding\0UTF8\0")
    + message(b"S", b"DateStyle\0ISO, MDY\0")
    + message(b"K", struct.pack("!ii", 7, 7))
    + READY
)
# What is sent again and again is sent by the quarter of a megabyte.
_AT_ONCE = 1 << 18


def columns(count: int, told: int | None = None) -> bytes:
    """Describe so many columns of text, and say that they were so many."""
    one = b"c\0" + bytes(6) + (25).to_bytes(4, "big") + b"\xff\xff" + bytes(6)
    return message(b"T", struct.pack("!H", told or count) + one * count)


def row(*values: bytes, told: int | None = None) -> bytes:
    """Make a row of these values that says it had so many."""
    fields = b"".join(struct.pack("!i", len(value)) + value for value in values)
    return message(b"D", struct.pack("!H", told or len(values)) + fields)


class Liar:
    """Listens on the loopback address.

    Args:
        login: What it answers to who logs in.
        answer: What it answers where a statement is described, carried out or ended;
            what comes before that is answered as it must be.
        login_ends: Whether the end of that is not said again and again.
        answer_ends: The same for the answer.
        unasked: What it says without end once somebody is let in.
    """

    def __init__(
        self,
        *,
        login: bytes = LET_IN,
        answer: bytes = b"",
        login_ends: bool = True,
        answer_ends: bool = True,
        unasked: bytes = b"",
    ) -> None:
        self._unasked = self._speech(unasked, not unasked)
        self._login = self._speech(login, login_ends)
        self._answer = self._speech(answer, answer_ends)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @staticmethod
    def _speech(said: bytes, ends: bool) -> Callable[[], Iterable[bytes]]:
        def speak() -> Iterable[bytes]:
            yield said
            again = said * (_AT_ONCE // max(1, len(said)) + 1)
            while not ends:
                yield again

        return speak

    def close(self) -> None:
        """End everything."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(20)
        self._listener.close()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                thread = threading.Thread(target=self._serve, args=(client,))
                thread.daemon = True
                thread.start()
                self._threads.append(thread)

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            client.recv(65536)
            for part in self._login():
                client.sendall(part)
            for part in self._unasked():
                client.sendall(part)
            while asked := client.recv(65536):
                client.sendall(_before_the_lie(asked))
                for part in self._answer():
                    client.sendall(part)


def _before_the_lie(asked: bytes) -> bytes:
    """Answer what a client has sent, up to where a lie is told."""
    answers = {b"C": b"3", b"P": b"1", b"B": b"2"}
    said = b""
    while asked and (kind := answers.get(asked[:1])):
        said += message(kind, b"")
        asked = asked[struct.unpack("!i", asked[1:5])[0] + 1 :]
    return said


def peak(action: Callable[[], object]) -> int:
    """Return by how many bytes this process grew at most while it did something."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    action()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)
