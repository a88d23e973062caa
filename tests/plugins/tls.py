"""A proxy that ends TLS itself, so that it can end it in each of the ways there are."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_SSL_REQUEST = 80877103


class TlsProxy:
    """Speaks TLS with its clients and plain text with a server.

    Args:
        address: Host and port of the server, which need not know TLS.
        certificate: Path of the certificate.
        key: Path of its key.
    """

    def __init__(self, address: tuple[str, int], certificate: Path, key: Path) -> None:
        self._address = address
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._clients: list[ssl.SSLSocket] = []
        self._servers: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._readers: list[threading.Thread] = []
        self._lock = threading.Lock()  # guards the readers
        self._ending = threading.Event()
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def say_goodbye(self) -> None:
        """End TLS as its rules want it, with a last message; then the connection."""
        self._ending.set()
        with self._lock:
            readers = list(self._readers)
        for thread in readers:
            thread.join(5)

    def cut(self) -> None:
        """End the connections without a word of TLS."""
        for each in self._clients:
            _shut(each)

    def close(self) -> None:
        """End everything."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._ending.set()
        self._accepting.join(20)  # whom it has taken is in the lists then
        for each in (*self._clients, *self._servers):
            _shut(each)
        for thread in self._threads:
            thread.join(5)
        for each in (self._listener, *self._clients, *self._servers):
            each.close()

    def _run(self, target: Callable[..., None], *args: object) -> threading.Thread:
        thread = threading.Thread(target=target, args=args, daemon=True)
        thread.start()
        self._threads.append(thread)
        return thread

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            raw.settimeout(10)
            with contextlib.suppress(OSError, struct.error):  # it has gone again
                self._take(raw)

    def _take(self, raw: socket.socket) -> None:
        with contextlib.ExitStack() as until_taken:
            until_taken.enter_context(raw)
            while struct.unpack("!ii", raw.recv(8))[1] != _SSL_REQUEST:
                raw.sendall(b"N")
            raw.sendall(b"S")
            client = self._context.wrap_socket(raw, server_side=True)
            until_taken.enter_context(client)
            server = socket.create_connection(self._address)
            until_taken.pop_all()
        self._clients.append(client)
        self._servers.append(server)
        client.settimeout(0.05)
        with self._lock:  # who has an answer finds in the list who has passed it on
            self._readers.append(self._run(self._read, client, server))
        self._run(self._pump, server, client)

    def _read(self, client: ssl.SSLSocket, server: socket.socket) -> None:
        """Pass on what a client says, and end its TLS: one thread does both."""
        with contextlib.suppress(OSError, ValueError):
            while not self._ending.is_set():
                with contextlib.suppress(TimeoutError):
                    data = client.recv(65536)
                    if not data:
                        return
                    server.sendall(data)
            client.unwrap()  # sends the goodbye, and waits in vain for the client's
        _shut(client)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            while data := source.recv(65536):
                sink.sendall(data)


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
