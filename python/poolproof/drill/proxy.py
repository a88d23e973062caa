"""A TCP proxy inside this process that can do harm to what passes through.

Each client connection is a `Link` with two `Pump` threads, one for each direction.
A pump owns the socket it writes to: whatever is sent there goes through its lock, so
that bytes put in by hand never tear a segment of the server's. Harm is done by
commands on a link, from any thread: `Link.inject`, `Link.precede`, `Link.follow`,
`Link.stall`, `Link.cut`. What stops or changes what passes does so in
`Pump.forward`, the only place that passes anything on.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import threading
import time
from typing import TYPE_CHECKING, Final

from poolproof.drill.started import Started

if TYPE_CHECKING:
    from typing_extensions import Self

    from poolproof.drill.target import Address

_CHUNK: Final = 65536
_CONNECT_S: Final = 10.0
_JOIN_S: Final = 2.0
_READY: Final = b"Z\0\0\0\5"  # ReadyForQuery, but for its last byte


class Pump(threading.Thread):
    """Moves bytes one way, from one socket to another, until either ends."""

    def __init__(self, name: str, source: socket.socket, sink: socket.socket) -> None:
        super().__init__(name=name, daemon=True)
        self.bytes_total = 0
        self.last_at = time.monotonic()
        self.delay_s = 0.0
        self._source = source
        self._sink = sink
        self._lock = threading.Lock()  # guards writes to the sink, and nothing else
        self._open = threading.Event()
        self._open.set()
        self._before = b""
        self._after = b""
        self._mark = b""

    def run(self) -> None:
        """Forward until the source ends, then let the sink know."""
        with contextlib.suppress(OSError):
            while data := self._source.recv(_CHUNK):
                self.forward(data)
        with contextlib.suppress(OSError):
            self._sink.shutdown(socket.SHUT_WR)

    def stall(self) -> None:
        """Take what the source sends, and pass nothing on until `resume`."""
        self._open.clear()

    def stall_at(self, mark: bytes) -> None:
        """Hold everything back from the piece that has these bytes in it."""
        self._mark = mark

    def resume(self) -> None:
        """Pass on what was held back, and go on."""
        self._mark = b""
        self._open.set()

    def precede(self, data: bytes) -> None:
        """Put bytes before the next that pass, in one piece with them."""
        self._before = data

    def follow(self, data: bytes) -> None:
        """Put bytes after the next whole answer that passes, in one piece with it."""
        self._after = data

    def forward(self, data: bytes) -> None:
        """Pass on what the source sent, when and how the commands say."""
        if self.delay_s:
            time.sleep(self.delay_s)
        if self._mark and self._mark in data:
            self._open.clear()
        self._open.wait()
        before, self._before = self._before, b""
        after = b""
        if self._after and data[-len(_READY) - 1 : -1] == _READY:
            after, self._after = self._after, b""
        self.write(before + data + after)
        self.bytes_total += len(data)
        self.last_at = time.monotonic()

    def write(self, data: bytes) -> None:
        """Send bytes to the sink, whole, between two others' bytes."""
        with self._lock:
            self._sink.sendall(data)


class Link:
    """One client's connection and the server's side of it."""

    def __init__(
        self, number: int, client: socket.socket, server: socket.socket
    ) -> None:
        self.number = number
        self._client = client
        self._server = server
        self._up = Pump(f"proxy-{number}-up", client, server)
        self._down = Pump(f"proxy-{number}-down", server, client)

    def start(self) -> None:
        """Begin to forward in both directions."""
        self._up.start()
        self._down.start()

    @property
    def alive(self) -> bool:
        """Whether both sides are still connected."""
        return self._up.is_alive() and self._down.is_alive()

    def is_quiet(self, quiet_s: float = 0.01) -> bool:
        """Tell whether nothing passed for *quiet_s* seconds, as on an idle session."""
        last = max(self._up.last_at, self._down.last_at)
        return time.monotonic() - last >= quiet_s

    def wait_quiet(self, *, quiet_s: float = 0.01, timeout_s: float = 2.0) -> bool:
        """Wait until the link `is_quiet`.

        Args:
            quiet_s: Seconds without a byte.
            timeout_s: Seconds after which to give up.

        Returns:
            Whether it became quiet in time.
        """
        deadline = time.monotonic() + timeout_s
        while not self.is_quiet(quiet_s):
            if time.monotonic() > deadline:
                return False
            time.sleep(quiet_s / 4)
        return True

    def inject(self, data: bytes) -> None:
        """Send bytes to the client that its server never sent.

        They lie in the client's receive buffer when this returns (on loopback).

        Raises:
            OSError: The client is gone.
        """
        self._down.write(data)

    def precede(self, data: bytes) -> None:
        """Have bytes that the server never sent arrive just before its next ones."""
        self._down.precede(data)

    def follow(self, data: bytes) -> None:
        """Have bytes that the server never sent arrive with the end of its answer."""
        self._down.follow(data)

    def stall(self) -> None:
        """Acknowledge whatever either side sends, and deliver nothing of it.

        To both it looks as if the other had received everything and hangs.
        """
        self._up.stall()
        self._down.stall()

    def stall_questions(self) -> None:
        """Deliver nothing any more of what the client sends."""
        self._up.stall()

    def stall_answers(self, mark: bytes) -> None:
        """Deliver nothing any more of what the server sends, from these bytes on.

        Args:
            mark: Bytes of one message, such as the end of a command's answer.
        """
        self._down.stall_at(mark)

    def resume(self) -> None:
        """Deliver what was held back by `stall`, late, and go on as before."""
        self._up.resume()
        self._down.resume()

    def delay(self, seconds: float) -> None:
        """Deliver each piece later by so much, in both directions; 0 ends it."""
        self._up.delay_s = self._down.delay_s = seconds

    def cut(self) -> None:
        """End both connections, as when the network path is torn down."""
        for side in (self._client, self._server):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
        self.resume()  # a pump that holds bytes back finds nobody to take them

    def reset(self) -> None:
        """End the client's connection as a peer does that was killed: with RST."""
        nowhere = bytes(16)  # an address of AF_UNSPEC; see connect(2)
        if ctypes.CDLL(None).connect(self._client.fileno(), nowhere, len(nowhere)):
            raise OSError("the system does not reset connections like this")
        self.cut()

    def close(self) -> None:
        """Cut, wait for the pumps, and give the descriptors back."""
        self.cut()
        for pump in (self._up, self._down):
            if pump.ident is not None:
                pump.join(_JOIN_S)
        self._client.close()
        self._server.close()


class Proxy(Started):
    """Listens on a loopback port and forwards each connection to a server.

    Example:
        >>> with Proxy(target.address()) as proxy:  # doctest: +SKIP
        ...     engine = stage.engine(target.through(proxy.port))
        ...     proxy.links[0].inject(b"stray")
    """

    def __init__(
        self, upstream: Address, listener: socket.socket | None = None
    ) -> None:
        """Prepare a proxy.

        Args:
            upstream: Where the server listens.
            listener: A listening TCP socket to use, and to close in the end, instead
                of a free port on the loopback address.
        """
        self._upstream = upstream
        self._listener = listener
        self._accepting: threading.Thread | None = None
        self._links: list[Link] = []
        self._stalled = False
        self._delay_s = 0.0
        self._lock = threading.Lock()  # guards the list of links, and what they get

    def start(self) -> Self:
        """Listen and accept in a thread of its own."""
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", 0))
        self._accepting = threading.Thread(
            target=self._accept, args=(self._listener,), name="proxy", daemon=True
        )
        self._accepting.start()
        return self

    @property
    def port(self) -> int:
        """The port where it listens."""
        if self._listener is None:
            raise RuntimeError("the proxy was not started")
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def links(self) -> tuple[Link, ...]:
        """The links that are alive, oldest first."""
        with self._lock:
            return tuple(link for link in self._links if link.alive)

    def stall(self, *, newcomers: bool = True) -> None:
        """Stall every link, and those that are made from now on, too.

        Args:
            newcomers: Stall new links as well; otherwise they work.
        """
        with self._lock:
            self._stalled = newcomers
            for link in self._links:
                link.stall()

    def resume(self, *, old: bool = True) -> None:
        """Let new links work again.

        Args:
            old: Resume the links that were stalled as well; otherwise they stay as
                they are, like connections that a firewall has forgotten.
        """
        with self._lock:
            self._stalled = False
            for link in self._links if old else ():
                link.resume()

    def delay(self, seconds: float) -> None:
        """Delay every link, and those that are made from now on, too; 0 ends it."""
        with self._lock:
            self._delay_s = seconds
            for link in self._links:
                link.delay(seconds)

    def _accept(self, listener: socket.socket) -> None:
        """Take connections until the listener is shut."""
        number = 0
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = self._connect()
            except OSError:
                client.close()
                continue
            for side in (client, server):
                if side.family != socket.AF_UNIX:
                    side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = Link(number, client, server)
            number += 1
            # Listed before anything can pass, so that whoever got an answer finds it.
            with self._lock:
                self._links.append(link)
                link.delay(self._delay_s)
                if self._stalled:
                    link.stall()
            link.start()

    def _connect(self) -> socket.socket:
        """Open the server's side of a new link."""
        if self._upstream.path:
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._upstream.path)
            return server
        address = (self._upstream.host, self._upstream.port)
        server = socket.create_connection(address, _CONNECT_S)
        server.settimeout(None)
        return server

    def stop(self) -> None:
        """Stop listening and close every link; does nothing a second time."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept
            listener.close()
        if self._accepting is not None:
            self._accepting.join(_CONNECT_S)  # whom it has taken is listed then
        with self._lock:
            links, self._links = self._links, []
        for link in links:
            link.close()
