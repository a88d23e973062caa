"""Whether a session could write when it was opened: only a change is a failover.

A server, a role or a database may make every session read-only from its start. A write
there is the application's mistake, and another session would refuse it as well. The
server reports both settings by itself (PostgreSQL 14 and newer), so it costs no round
trip to remember them. Where a driver does not tell, the first refused write is taken
for a failover, and the first session after it is asked.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from poolproof import drivers
from poolproof._log import Log
from poolproof._signal import read_only_of, server_read_only

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry, Pool

    from poolproof._signal import ReadOnly

__all__ = ["remember", "who_made_read_only"]

# On the pool's entry, not in its `info`, which is the application's.
_ATTRIBUTE = "_poolproof_opened"
# A name server may lead to the old server for a while after a failover. A session that
# was opened there is not replaced again sooner, in seconds.
_AGAIN_S = 5.0
# A row or none: that needs no conversion, which an application may have changed.
_QUESTION = (
    "select 1 where pg_is_in_recovery() "
    "or current_setting('default_transaction_read_only') = 'on'"
)

_log = Log("poolproof.guard")


class _Sessions:
    """The sessions of one pool, as they were opened: a listener of `connect`.

    Attributes:
        wrote: Whether one of them could write.
        asks: Whether the next one is to be asked, because the driver does not tell.
        answer: What the last one has answered.
    """

    __slots__ = ("__weakref__", "answer", "asks", "wrote")

    def __init__(self) -> None:
        self.wrote = self.asks = False
        self.answer: bool | None = None

    def __call__(
        self, connection: DBAPIConnection, record: ConnectionPoolEntry
    ) -> None:
        """Remember a session that was just opened."""
        if drivers.is_mock(record.driver_connection):
            return
        try:
            read_only = server_read_only(record.driver_connection)
            if read_only is None and self.asks:
                self.asks = False
                self.answer = _ask(connection)
            if read_only is None:
                read_only = self.answer
            self.wrote |= read_only is False
            setattr(record, _ATTRIBUTE, _Opened(self, read_only))
        except Exception:  # noqa: BLE001 - without it a write costs as in a failover
            _log.exception("it could not be seen whether a new session can write")


class _Opened:
    """One session, as it was opened."""

    __slots__ = ("_at", "_read_only", "_sessions")

    def __init__(self, sessions: _Sessions, read_only: bool | None) -> None:
        self._sessions = sessions
        self._read_only = read_only
        self._at = monotonic()

    def judge(self, found: ReadOnly) -> ReadOnly:
        """Say what it means that it refuses a write.

        Args:
            found: What its driver says now.
        """
        if not self._read_only:
            if found == "unknown":
                self._sessions.asks = True
            return found
        if not self._sessions.wrote:
            return "always"
        return "lately" if monotonic() - self._at < _AGAIN_S else "imposed"


def remember(pool: Pool) -> None:
    """Have the sessions of a pool remembered from now on. Idempotent.

    Args:
        pool: Any pool, before it is used.
    """
    if not any(isinstance(one, _Sessions) for one in list(pool.dispatch.connect)):
        event.listen(pool, "connect", _Sessions())


def who_made_read_only(entry: object, driver: object) -> ReadOnly:
    """Say why a session refuses to write, without a round trip.

    Args:
        entry: The entry of any pool, or None.
        driver: The driver's own connection.

    Returns:
        ``"always"`` where it was so from the start, as all of the pool's were;
        ``"lately"`` where it was so from the start a moment ago, and others could
        write; otherwise what the driver says.
    """
    found = read_only_of(driver)
    opened = getattr(entry, _ATTRIBUTE, None)
    if found == "chosen" or not isinstance(opened, _Opened):
        return found
    return opened.judge(found)


def _ask(connection: Any) -> bool:
    """Ask a session that was just opened whether it is read-only."""
    cursor = connection.cursor()
    cursor.execute(_QUESTION)
    found = cursor.fetchone() is not None
    cursor.close()
    connection.rollback()
    return found
