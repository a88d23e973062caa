"""Backends that discarded connections leave behind, ended on the server.

A connection that is discarded, because its server is silent or because it is out of
step, is severed: nothing is sent. Its backend may go on with a statement, and keep its
locks, for as long as it does not notice. With ``end_stranded_backends`` the control
plane cancels it and, if it lives on, terminates it; src/control/backend.rs says how it
makes sure that it is the right one. A process that ends with one under way waits for it
for a moment.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import exc

from poolproof import _native
from poolproof._counts import Counts
from poolproof._log import Log, fields
from poolproof.control import notifier
from poolproof.control.server import refused, server_at
from poolproof.drivers import known
from poolproof.errors import ControlError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.pool import Pool

    from poolproof.drivers.server_params import ControlDsn

__all__ = ["Stranded"]

# How long the end of a process waits for those that are under way.
_FAREWELL_S = 2.0
_POLL_S = 0.01

_log = Log("poolproof.stranded")

_STRANGE = (
    "was left alone: the server shows none with its process id, address, port, role "
    "and database. A pooler or something else between changes them"
)
_LINES = {
    "gone": (logging.DEBUG, "had ended by itself"),
    "cancelled": (logging.WARNING, "ended when its statement was cancelled"),
    "terminated": (logging.WARNING, "did not end when cancelled, and was terminated"),
    "lives_on": (logging.ERROR, "was cancelled and terminated, and is still there"),
    "failed": (logging.ERROR, "could not be ended: "),
    "unrecognised": (logging.WARNING, _STRANGE),
}

# In a child also its parent's, which are not waited for.
_under_way: set[_Ending] = set()


class Stranded:
    """The backends that one pool's connections leave behind in this process.

    Attributes:
        counts: What became of them, by word.
    """

    def __init__(self, totals: Counts) -> None:
        """Know none yet.

        Args:
            totals: Where they are counted too, for the pool's successors.
        """
        self.counts = Counts()
        self._totals = totals
        self._backends: tuple[_native.Server, _native.Backends] | None = None
        self._has_said_why = False

    def reach(self, pool: Pool, dialect: Any, dsn: ControlDsn | None) -> None:
        """Work out how the control plane reaches the pool's server.

        Args:
            pool: The pool.
            dialect: Its dialect; a stand-in, where the pool stands alone.
            dsn: Its `control_dsn`.

        Raises:
            ArgumentError: It cannot be known.
        """
        try:
            server = server_at(pool, dialect, dsn)
        except exc.ArgumentError as error:
            raise exc.ArgumentError(f"end_stranded_backends: {error}") from None
        if self._backends is None or self._backends[0] is not server:
            self._backends = (server, _native.Backends(server))

    def meet(
        self, connection: Any, socket: _native.Socket | None, reach: Callable[[], None]
    ) -> _native.Backend | None:
        """Note the backend of a new connection.

        Args:
            connection: The DBAPI connection.
            socket: Its socket.
            reach: Calls `reach` as the pool would: a child has another control plane.

        Returns:
            The backend; None where it cannot be known or watched.
        """
        pid = known.of(connection, None).backend_pid(connection)
        if pid is None or socket is None:
            return None
        try:
            reach()
            return (
                None if self._backends is None else self._backends[1].meet(socket, pid)
            )
        except _native.Refused as error:
            _log.warning("Backend %d cannot be watched: %s", pid, refused(error))
        except (exc.ArgumentError, ControlError) as error:
            # By a listener that came later: it costs this, and not the checkout.
            _log.warning("Backend %d cannot be watched: %s", pid, error)
        return None

    def end(self, left: _native.Backend | None, reason: str) -> None:
        """End the backend of a connection that is being discarded.

        Args:
            left: The backend; None where it is not known.
            reason: Why, as `PoolStats.discarded` counts it.
        """
        if left is None:
            self._settle("unrecognised", None, reason)
        elif left.is_ours:
            try:
                number = left.end()
            except _native.Refused as error:
                self._settle("failed", left.pid, reason, str(refused(error)))
                return
            ending = _Ending(self, left, number, reason)
            _under_way.add(ending)
            notifier.watch(number, ending)
            if left.fate() is not None:  # told before anybody listened
                ending.tell()

    def done(self, ending: _Ending) -> None:
        """Count and log what became of a backend, once.

        Args:
            ending: What was under way.
        """
        fate = ending.backend.fate()
        if fate is None or ending not in _under_way:
            return
        _under_way.discard(ending)
        notifier.unwatch(ending.number)
        self._settle(fate[0], ending.backend.pid, ending.reason, fate[1])

    def _settle(self, word: str, pid: int | None, reason: str, why: str = "") -> None:
        """Count and log what became of a backend; that one was left alone, once."""
        self.counts.add(word)
        self._totals.add(word)
        level, line = _LINES[word]
        if word == "unrecognised" and self._has_said_why:
            level = logging.DEBUG
        self._has_said_why |= word == "unrecognised"
        _log.log(
            level,
            "Backend %s, left behind by a connection that was discarded (%s), %s%s",
            pid or "?",
            reason,
            line,
            why,
            extra=fields(backend_pid=pid, reason=reason, outcome=word),
        )


class _Ending:
    """One backend that is being ended."""

    __slots__ = ("__weakref__", "_stranded", "backend", "number", "reason")

    def __init__(
        self, stranded: Stranded, left: _native.Backend, number: int, reason: str
    ) -> None:
        self._stranded = stranded
        self.backend = left
        self.number = number
        self.reason = reason

    def tell(self) -> None:
        """Say that the control plane is done with it. For the notifier."""
        self._stranded.done(self)


def _see_off() -> None:
    """Wait for what is under way in this process, which ends."""
    until = time.monotonic() + _FAREWELL_S
    ours = [ending for ending in list(_under_way) if ending.backend.is_ours]
    while time.monotonic() < until:
        if all(ending.backend.fate() is not None for ending in ours):
            break
        time.sleep(_POLL_S)
    for ending in ours:
        ending.tell()


notifier.at_end(_see_off)
