"""Peers that are of no use: one that never answers, one that refuses."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import URL

if TYPE_CHECKING:
    from collections.abc import Iterator


class Peer:
    """An address on the loopback network, and the URL of a database there.

    Args:
        listening: Whether the system takes connections, which nobody will answer;
            otherwise it refuses them.
    """

    def __init__(self, *, listening: bool) -> None:
        self._socket = socket.socket()
        # All of 127.0.0.0/8: each is an address of its own to a driver.
        self._socket.bind(("0.0.0.0", 0))  # noqa: S104 - nobody is answered
        if listening:
            self._socket.listen(128)
        self.port: int = self._socket.getsockname()[1]

    def url(self, driver: str, *, host: str = "127.0.0.1") -> URL:
        """Return the URL for one driver."""
        return URL.create(
            f"postgresql+{driver}",
            username="nobody",
            host=host,
            port=self.port,
            database="nothing",
        )

    def close(self) -> None:
        """Free the port."""
        self._socket.close()


@pytest.fixture
def deaf() -> Iterator[Peer]:
    """Take connections and never say a word."""
    peer = Peer(listening=True)
    yield peer
    peer.close()


@pytest.fixture
def refusing() -> Iterator[Peer]:
    """Refuse connections, as a server that is down does."""
    peer = Peer(listening=False)
    yield peer
    peer.close()
