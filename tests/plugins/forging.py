"""A proxy that puts other answers in the place of those of a real PostgreSQL.

Whoever forges sees the request as well: what a client counts on it can meet, or miss by
one thing alone.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Forger", "marks"]

# A client has taken what came alone, as a rule.
_APART_S = 0.01
_MARK = ord("3")
_CLOSE = ord("C")

Forge = "Callable[[list[bytes], list[bytes]], list[list[bytes]] | None]"


def marks(request: list[bytes]) -> tuple[int, int]:
    """Count a request's marks, ahead of all else and behind all else.

    Args:
        request: What the client has sent, message by message.
    """
    kinds = [one[0] for one in request]
    ahead = next(n for n, kind in enumerate(kinds) if kind != _CLOSE)
    behind = next(n for n, kind in enumerate(reversed(kinds[:-1])) if kind != _CLOSE)
    return ahead, behind


class Forger:
    """Listens, and forwards one connection at a time to a server.

    Args:
        address: Host and port of the server.

    Attributes:
        port: Where it listens.
        forge: Is given each request and its answer, message by message; returns what
            the client is sent in the place of that, each list in a segment of its own;
            None for the answer as it is.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.forge: Callable[..., list[list[bytes]] | None] = lambda *_: None
        self._serving = threading.Thread(target=self._serve, daemon=True)
        self._serving.start()

    def close(self) -> None:
        """Listen no longer."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._serving.join(20)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with client, socket.create_connection(self._address) as server:
                    for each in (client, server):
                        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._forward(client, server)

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        requests: deque[list[bytes]] = deque()
        asking = threading.Thread(target=_ask, args=(client, server, requests))
        asking.start()
        with contextlib.suppress(OSError):
            self._answer(client, server, requests)
        for each in (client, server):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        asking.join()

    def _answer(
        self,
        client: socket.socket,
        server: socket.socket,
        requests: deque[list[bytes]],
    ) -> None:
        is_in = False
        answer: list[bytes] = []
        for one in _messages(server):
            answer.append(one)
            if one[:1] != b"Z" and is_in:
                continue
            segments = None
            if is_in:
                segments = self.forge(requests.popleft(), answer)
            is_in = is_in or one[:1] == b"Z"
            for number, segment in enumerate(
                [answer] if segments is None else segments
            ):
                if number:
                    time.sleep(_APART_S)
                client.sendall(b"".join(segment))
            answer = []


def _ask(
    client: socket.socket, server: socket.socket, requests: deque[list[bytes]]
) -> None:
    """Forward what a client asks, in clear and by a password at most."""
    with contextlib.suppress(OSError):
        start = client.recv(65536)
        server.sendall(start)
        request: list[bytes] = []
        for one in _messages(client):
            if one[:1] != b"p":
                request.append(one)
            if one[:1] in {b"S", b"Q"}:
                requests.append(request)
                request = []
            server.sendall(one)
    with contextlib.suppress(OSError):
        server.shutdown(socket.SHUT_WR)


def _messages(source: socket.socket) -> Iterator[bytes]:
    unread = b""
    while data := source.recv(65536):
        unread += data
        while len(unread) >= 5:
            length = struct.unpack("!i", unread[1:5])[0] + 1
            if len(unread) < length:
                break
            yield unread[:length]
            unread = unread[length:]
