"""A proxy that breaks a session at a chosen step: the piece that would pass next."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

COMMITTED = b"C\0\0\0\x0bCOMMIT\0"  # the server's CommandComplete
RESET = struct.pack("ii", 1, 0)  # close() then sends RST, not FIN


class Steps:
    """Forwards to a server, counts the pieces that pass, and ends a session at one.

    Args:
        address: Host and port of the server.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._ends: list[socket.socket] = []
        self._lock = threading.Lock()  # guards what follows
        self._breaks: list[tuple[int, str]] = []
        self._is_lost = False
        self._counts = False
        self._left = 0
        self.has_broken = False
        self.port: int = self._listener.getsockname()[1]

    def break_at(self, step: int, how: str) -> None:
        """End the session whose piece, in either direction, is the next but *step*.

        Args:
            step: How many pieces pass before, 0 or more.
            how: ``"reset"`` (RST) or ``"end"`` (FIN), as the client sees it.
        """
        with self._lock:
            self._left, self._how, self.has_broken = step, how, False
            self._counts = True

    def lose_commit(self, step: int, how: str) -> None:
        """Lose the answer to the next commit with its session. Then `break_at`."""
        with self._lock:
            self._is_lost = True
            self._next = step, how
            self._counts = self.has_broken = False

    def __enter__(self) -> Self:
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(20)  # whom it has taken is in the lists then
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._listener.close()

    def _run(self, target: Any, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._ends.append(client)
                server = socket.create_connection(self._address)
                self._ends.append(server)
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._run(self._forward, client, server)

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        """Pass on what both say until one ends, or this is the step."""
        with client, server, contextlib.suppress(OSError):
            while True:
                readable, _, _ = select.select([client, server], [], [])
                for source in readable:
                    data = source.recv(65536)
                    how = self._way_to_end(data)
                    if how == "reset":
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    if how or not data:
                        return
                    (client if source is server else server).sendall(data)

    def _way_to_end(self, data: bytes) -> str | None:
        with self._lock:
            if self._is_lost:
                if COMMITTED not in data:
                    return None
                self._is_lost = False
                self._left, self._how = self._next
                self._counts = True
                return self._how
            if not self._counts:
                return None
            self._left -= 1
            if self._left >= 0:
                return None
            self._counts, self.has_broken = False, True
            return self._how
