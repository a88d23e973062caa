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

from poolproof import _native, backend, notifier
from poolproof.control import refused, server_at
from poolproof.stats import Counts

if TYPE_CHECKING:
    from poolproof.entry import Entry
    from poolproof.pool import Pool

__all__ = ["Stranded"]

UNRECOGNISED = "unrecognised"
# How long the end of a process waits for those that are under way.
_FAREWELL_S = 2.0
_POLL_S = 0.01

_log = logging.getLogger("poolproof.stranded")

_LINES = {
    "gone": (logging.DEBUG, "had ended by itself"),
    "cancelled": (logging.WARNING, "ended when its statement was cancelled"),
    "terminated": (logging.WARNING, "did not end when cancelled, and was terminated"),
    "lives_on": (logging.ERROR, "was cancelled and terminated, and is still there"),
    "failed": (logging.ERROR, "could not be ended: "),
}


# Why one was left alone.
_STRANGE = (
    "the server shows none with its process id, address, port, role and database. A "
    "pooler or something else between changes them"
)
_NEW = "the connection was only just opened, and it was not looked for yet"
_UNHEARD = "the control plane could not ask the server about it: "

# In a child also its parent's, which are not waited for.
_under_way: set[_Ending] = set()


class Stranded:
    """The backends that one pool's connections leave behind in this process.

    Attributes:
        counts: What became of them, by word.
    """

    def __init__(self) -> None:
        """Know none yet."""
        self.counts = Counts()
        self._backends: tuple[_native.Server, _native.Backends] | None = None
        self._said: set[str] = set()

    def reach(self, pool: Pool) -> None:
        """Work out how the control plane reaches the pool's server.

        Args:
            pool: The pool, before it connects.

        Raises:
            ArgumentError: It cannot be known.
        """
        dialect: Any = pool._dialect  # a stand-in, where a pool stands alone
        server = server_at(pool, dialect, pool.settings.control_dsn)
        if self._backends is None or self._backends[0] is not server:
            self._backends = (server, _native.Backends(server))

    def meet(self, entry: Entry, connection: Any) -> None:
        """Note the backend of a new connection.

        Args:
            entry: Its entry, which knows its socket.
            connection: The DBAPI connection.
        """
        entry.backend = None
        pid = backend.ask(connection)
        if self._backends is None or pid is None or entry.socket is None:
            return
        try:
            entry.backend = self._backends[1].meet(entry.socket, pid)
        except _native.Refused as error:
            _log.warning("Backend %d cannot be watched: %s", pid, refused(error))

    def end(self, entry: Entry, reason: str) -> None:
        """End the backend of a connection that is being discarded.

        Args:
            entry: Its entry.
            reason: Why, as `PoolStats.discarded` counts it.
        """
        left, entry.backend = entry.backend, None
        if left is None:
            self._leave_alone(reason, _STRANGE)
            return
        if not left.is_ours:
            return
        try:
            number = left.end()
        except _native.Refused as error:
            self.counts.add("failed")
            _log.error("Backend %d could not be ended: %s", left.pid, refused(error))
            return
        if number is None:
            self._leave_alone(reason, _why_unrecognised(left))
            return
        ending = _Ending(self, left, number, reason)
        _under_way.add(ending)
        notifier.watch(number, ending)
        if left.fate() is not None:  # told before anybody listened
            ending.tell()

    def _leave_alone(self, reason: str, why: str) -> None:
        """Leave alone what may be somebody else's."""
        self.counts.add(UNRECOGNISED)
        _log.log(
            logging.DEBUG if why in self._said else logging.WARNING,
            "A connection was discarded (%s), and its backend left alone: %s",
            reason,
            why,
        )
        self._said.add(why)

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
        word, why = fate
        self.counts.add(word)
        level, line = _LINES[word]
        _log.log(
            level,
            "Backend %d, left behind by a connection that was discarded (%s), %s%s",
            ending.backend.pid,
            ending.reason,
            line,
            why,
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


def _why_unrecognised(left: _native.Backend) -> str:
    if left.unheard is not None:
        return _UNHEARD + left.unheard
    return _NEW if left.is_recognised is None else _STRANGE


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
