"""Why a session refuses a write: only a change of the server is a failover.

A server, a role or a database may make every session read-only from its start. A write
there is the application's mistake, and another session would refuse it as well. The
server reports both settings by itself (PostgreSQL 14 and newer), so it costs no round
trip to remember them. Where a driver does not tell, the first refused write is taken
for a failover, and the first session after it is asked.

A session that could write and is read-only now was changed by its server, or by the
application itself (``SET default_transaction_read_only``): what is reported is the
same. The session knows, but answers nothing before its failed transaction has ended.
So the error itself costs nothing, and the session is asked when it comes back.
"""

from __future__ import annotations

import math
from time import monotonic
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from poolproof._log import Log
from poolproof._sqlalchemy import expire
from poolproof.drivers import backend, known
from poolproof.drivers.other import is_mock
from poolproof.faults import events
from poolproof.faults.table import Fault, appraise

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry, Pool

    from poolproof.faults.error_info import ReadOnly

__all__ = [
    "ask_at_checkin",
    "ask_now",
    "is_to_be_asked",
    "remember",
    "who_made_read_only",
]

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

# Who has made a session read-only that could write: a row where it was the server, the
# role or the database. What the session itself has set does not change `reset_val`.
_WHO = (
    "select 1 where pg_is_in_recovery() or exists (select 1 from pg_settings where "
    "name = 'default_transaction_read_only' and reset_val = 'on')"
)

_log = Log("poolproof.guard")


class _Sessions:
    """The sessions of one pool, as they were opened: a listener of `connect`.

    Attributes:
        wrote: Whether one of them could write.
        asks: Whether the next one is to be asked, because the driver does not tell.
        answer: What the last one has answered.
        chose_at: When one was last found to be read-only by its own will, on the
            monotonic clock.
    """

    __slots__ = ("__weakref__", "answer", "asks", "chose_at", "wrote")

    def __init__(self) -> None:
        self.wrote = self.asks = False
        self.answer: bool | None = None
        self.chose_at = -math.inf

    def __call__(
        self, connection: DBAPIConnection, record: ConnectionPoolEntry
    ) -> None:
        """Remember a session that was just opened."""
        if is_mock(record.driver_connection):
            return
        try:
            own = record.driver_connection
            read_only = known.of(own, None).read_only(own)
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
    """One session, as it was opened.

    Attributes:
        chose_at: When it was last found to be read-only by its own will, on the
            monotonic clock.
        is_asked: Whether it is to be asked when it comes back.
    """

    __slots__ = ("_at", "_read_only", "_sessions", "chose_at", "is_asked")

    def __init__(self, sessions: _Sessions, read_only: bool | None) -> None:
        self._sessions = sessions
        self._read_only = read_only
        self._at = monotonic()
        self.chose_at = -math.inf
        self.is_asked = False

    def judge(self, found: ReadOnly, *, standby: bool) -> ReadOnly:
        """Say what it means that it refuses a write.

        Args:
            found: What its driver says now.
            standby: Whether its server says that it is a standby.
        """
        if not self._read_only:
            # A neighbour that chose it a moment ago: the same application's habit.
            chosen = monotonic() - self._sessions.chose_at < _AGAIN_S
            return found if standby else "chosen" if chosen else "doubtful"
        if not self._sessions.wrote:
            return "always"
        return "lately" if monotonic() - self._at < _AGAIN_S else "imposed"

    def learn(self, connection: Any) -> bool:
        """Ask the session who has made it read-only, and remember the answer.

        Args:
            connection: Its DBAPI connection, in no transaction.

        Returns:
            Whether it was the server.

        Raises:
            Exception: Whatever the driver raises.
        """
        by_server = _has_row(connection, _WHO)
        if by_server:
            self._sessions.asks |= self._read_only is None
            self.chose_at = self._sessions.chose_at = -math.inf
        else:
            self.chose_at = self._sessions.chose_at = monotonic()
        return by_server


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
        write; ``"doubtful"`` where only the session itself knows; otherwise what the
        driver says.
    """
    found = _says(driver)
    opened = getattr(entry, _ATTRIBUTE, None)
    if found == "chosen" or not isinstance(opened, _Opened):
        return found
    return opened.judge(found, standby=known.of(driver, None).in_hot_standby(driver))


def _says(connection: object) -> ReadOnly:
    """Say who made a session's transaction read-only, by what its driver knows.

    The server reports both settings that make transactions read-only by themselves
    (PostgreSQL 14 and newer). When neither is on, the application did it.
    """
    driver = known.of(connection, None)
    if driver.is_told_read_only(connection):
        return "chosen"
    imposed = driver.read_only(connection)
    if imposed is None:
        return "unknown"
    return "imposed" if imposed else "chosen"


def is_to_be_asked(entry: object, found: ReadOnly, driver: object) -> bool:
    """Tell whether only a session itself knows why it has refused a write.

    Args:
        entry: Its entry in any pool.
        found: What `who_made_read_only` has said.
        driver: The driver's own connection.
    """
    opened = getattr(entry, _ATTRIBUTE, None)
    return (
        found in {"doubtful", "chosen"}
        and isinstance(opened, _Opened)
        and monotonic() - opened.chose_at >= _AGAIN_S
        and _says(driver) != "chosen"
    )


def ask_now(entry: Any) -> ReadOnly:
    """Ask a session that is in no transaction why it has refused a write.

    Args:
        entry: Its entry in any pool.

    Returns:
        ``"imposed"`` or ``"chosen"``; ``"doubtful"`` where it does not answer.
    """
    opened = getattr(entry, _ATTRIBUTE, None)
    if not isinstance(opened, _Opened):
        return "doubtful"
    try:
        return "imposed" if opened.learn(entry.dbapi_connection) else "chosen"
    except Exception as error:  # noqa: BLE001 - the driver's own, of any class
        _log.debug("a session did not say why it is read-only: %r", error)
        return "doubtful"


def ask_at_checkin(pool: Pool, entry: Any, driver_name: str) -> None:
    """Have a session asked why it has refused a write, once its transaction has ended.

    Where its server has changed, every connection of the pool is replaced.

    Args:
        pool: The session's pool, of any class.
        entry: Its entry there.
        driver_name: The driver's name.
    """
    opened = getattr(entry, _ATTRIBUTE, None)
    if not isinstance(opened, _Opened) or opened.is_asked:
        return
    opened.is_asked = True
    pid = backend.pid_of(entry)

    def ask(connection: Any) -> None:
        opened.is_asked = False
        if not opened.learn(connection):
            return
        final = events.report(
            appraise(Fault.READ_ONLY, phase="statement"),
            driver=driver_name,
            sqlstate="25006",
            backend_pid=pid,
        )
        if final.cost == "generation":
            expire(pool)

    def ask_quietly(connection: Any) -> None:
        try:
            ask(connection)
        except Exception as error:  # noqa: BLE001 - the connection is looked at next
            _log.debug("a session did not say why it is read-only: %r", error)

    entry.finalize_callback.append(ask_quietly)


def _ask(connection: Any) -> bool:
    """Ask a session that was just opened whether it is read-only."""
    return _has_row(connection, _QUESTION)


def _has_row(connection: Any, question: str) -> bool:
    """Ask something whose answer is a row or none, and leave no transaction behind."""
    driver = known.of(connection, None)
    threshold = driver.prepare_nothing(connection)
    cursor = connection.cursor()
    cursor.execute(question)
    found = cursor.fetchone() is not None
    cursor.close()
    connection.rollback()
    driver.prepare_again(connection, threshold)
    return found
