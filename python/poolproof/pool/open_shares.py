"""The shares of a host's budget that the open connections of a pool have.

A connection's share is given back when the server has let go of it: what the server
counts is never more than the budget.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
import weakref
from typing import TYPE_CHECKING, Any

from poolproof.fork import sockets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from poolproof._native import Share

__all__ = ["OpenShares"]

# How long the server may take to let go of a connection that was closed in order, in
# seconds.
_GOODBYE_S = 0.5


class OpenShares:
    """The shares of one pool's open connections, in this process.

    A connection that is collected without being closed gives its share back then.
    """

    __slots__ = ("_leaving", "_shares")

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._shares: dict[int, tuple[Share, object]] = {}
        # Connections that were closed, until the server has let go of them.
        self._leaving: set[_Leaving] = set()

    def __len__(self) -> int:
        """Count them."""
        return len(self._shares)

    def keep(self, connection: Any, share: Share) -> None:
        """Hold a share for as long as a connection is open.

        Args:
            connection: A DBAPI connection that was just opened.
            share: Its share.
        """
        key = id(connection)
        ender: object = None
        with contextlib.suppress(TypeError):  # without weak references
            ender = weakref.ref(connection, lambda _: self._shares.pop(key, None))
        self._shares[key] = (share, ender)

    def leaving(
        self, connection: Any, hear: Callable[[], None]
    ) -> Callable[[], None] | None:
        """Take a connection's share for as long as the server has not let go of it.

        For who closes it and may not wait: `settle` looks, from time to time.

        Args:
            connection: A DBAPI connection that is about to be closed.
            hear: Called when it is to be looked at.

        Returns:
            What is to be called when it was closed; None where it has no share.
        """
        share, _ender = self._shares.pop(id(connection), (None, None))
        if share is None:
            return None
        copy = None if _was_shut(connection) else _copy_of(connection)
        leaving = _Leaving(share, copy)

        def closed() -> None:
            leaving.begin()
            self._leaving.add(leaving)
            # With `hear` its pool, which may have been disposed of and forgotten.
            _departures[leaving] = hear
            hear()

        return closed

    def settle(self, *, waits: bool = False) -> bool:
        """Give the shares back of what the server has let go of.

        Args:
            waits: Whether to wait for all of them.

        Returns:
            Whether there are some left.
        """
        for leaving in list(self._leaving):
            if leaving.is_over(waits=waits):
                self._leaving.discard(leaving)
                _departures.pop(leaving, None)
        return bool(self._leaving)

    @contextlib.contextmanager
    def closing(self, connection: Any) -> Iterator[None]:
        """Give the share of a connection back once the server has let go of it.

        Args:
            connection: A DBAPI connection, which is closed within.
        """
        key = id(connection)
        if key not in self._shares:
            yield
            return
        # What was shut here says nothing of the server. Once it is closed, that is not
        # to be told any more.
        was_shut = _was_shut(connection)
        copy = None if was_shut else _copy_of(connection)
        has_gone = False
        try:
            yield
            has_gone = copy is None or _wait_for_end(
                copy, time.monotonic() + _GOODBYE_S
            )
        finally:
            if copy is not None:
                copy.close()
            share, _ender = self._shares.pop(key, (None, None))
            if share is not None:
                share.give_back(clear=has_gone and not was_shut)


class _Leaving:
    """The share of a connection that was closed, until the server has let go of it.

    One that is dropped before gives it back as that of a process that was killed.
    """

    __slots__ = ("_copy", "_share", "_until")

    def __init__(self, share: Share, copy: socket.socket | None) -> None:
        """Make one for a connection that is about to be closed.

        Args:
            share: Its share.
            copy: Another handle on its socket; None where that would tell nothing.
        """
        self._share = share
        self._copy = copy
        self._until = math.inf

    def begin(self) -> None:
        """Begin to wait: the connection was closed, and this is its last handle."""
        self._until = time.monotonic() + _GOODBYE_S
        if self._copy is not None:
            with contextlib.suppress(OSError):
                self._copy.shutdown(socket.SHUT_WR)

    def is_over(self, *, waits: bool) -> bool:
        """Give the share back, if it is time.

        Args:
            waits: Whether to wait for the time.
        """
        copy = self._copy
        if copy is None:
            self._share.give_back(clear=False)
            return True
        until = self._until if waits else time.monotonic()
        has_gone = _wait_for_end(copy, until)
        if not has_gone and time.monotonic() < self._until:
            return False
        self._copy = None
        copy.close()
        self._share.give_back(clear=has_gone)
        return True

    def __del__(self) -> None:
        """Close the handle."""
        if self._copy is not None:
            self._copy.close()


def _was_shut(connection: Any) -> bool:
    """Tell whether a connection's socket was shut here: that tells nothing there."""
    watched = sockets.find(connection)
    return watched is not None and (watched.severed or watched.expired is not None)


def _copy_of(connection: Any) -> socket.socket | None:
    """Return another handle on a connection's socket, which outlives its closing."""
    number = sockets.descriptor(connection)
    if number is None or sockets.is_foreign(connection):
        return None
    try:
        # Of whatever family: nothing but an end is read from it. One call, so that an
        # interruption leaves no bare number behind.
        return socket.fromfd(number, socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError:
        return None


def _wait_for_end(copy: socket.socket, until: float) -> bool:
    """Wait for the server's end of a connection that we have closed.

    Args:
        copy: Another handle on its socket.
        until: For how long, on the monotonic clock; one look in any case.
    """
    try:
        while True:
            copy.settimeout(max(0.0, until - time.monotonic()))
            if not copy.recv(65536):
                return True
    except (TimeoutError, BlockingIOError):
        pass
    except OSError:
        return True  # reset, which is an end as well
    return False


# What is to be told of each connection that is leaving.
_departures: dict[_Leaving, Callable[[], None]] = {}


def _forget_parents() -> None:
    """Let go, in a child, of what is leaving in its parent."""
    _departures.clear()


os.register_at_fork(after_in_child=_forget_parents)
