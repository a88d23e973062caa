"""Whether something goes on on a connection that is held.

Something goes on while SQLAlchemy executes, while the driver says that a command is
under way, and, over TCP on Linux, where anything was sent or has come since the last
look: so the short statements of a raw cursor count as well. Whether what was sent last
has had an answer the kernel does not tell: its two instants are often the same.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING, Any

from poolproof.fork import sockets

if TYPE_CHECKING:
    from poolproof.drivers.base import Driver

__all__ = ["IdleHold"]

# struct tcp_info (linux/tcp.h): bytes that were acknowledged, and that have come.
_BYTES, _TCP_INFO_SIZE = 120, 136
_TCP_INFO = getattr(socket, "TCP_INFO", None) if sys.platform == "linux" else None


class IdleHold:
    """What goes on on one connection since its checkout.

    Attributes:
        executing: Calls of SQLAlchemy's that are under way.
        executed: Those that have ended, ever.
        since: Since when nothing has gone on, on the monotonic clock.
        is_warned_of: Whether that was said.
        is_ended: Whether the connection was shut for it.
    """

    __slots__ = ("_seen", "executed", "executing", "is_ended", "is_warned_of", "since")

    def __init__(self, now: float) -> None:
        """Begin with a connection on which nothing has gone on yet.

        Args:
            now: The time, on the monotonic clock.
        """
        self.since = now
        self.executing = self.executed = 0
        self.is_warned_of = self.is_ended = False
        self._seen: tuple[object, ...] = ()

    def goes_on(self, connection: Any, driver: Driver) -> bool:
        """Tell whether something goes on, or has gone on since it was last asked.

        Args:
            connection: The driver's connection; None while there is none.
            driver: Its driver.
        """
        if self.executing or connection is None:
            return True
        if driver.tells and driver.is_busy(connection):
            return True
        seen = (self.executed, _traffic(connection))
        before, self._seen = self._seen, seen
        return seen != before


def _traffic(connection: Any) -> bytes:
    """Look at what has passed a connection's socket, without touching it.

    Returns:
        What changes with every byte; nothing where that is not known.
    """
    number = sockets.descriptor(connection)
    if _TCP_INFO is None or number is None:
        return b""
    try:
        with socket.socket(fileno=os.dup(number)) as copy:
            info = copy.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _TCP_INFO_SIZE)
    except OSError:  # a unix socket, or closed meanwhile
        return b""
    return info[_BYTES:] if len(info) == _TCP_INFO_SIZE else b""
