"""What became of a commit whose answer was lost: the server is asked.

Before the commit the transaction's number is asked for, with the server's timeline and
the instant from which it counts its statistics. A new connection can then say whether
that transaction is committed. After a failover the same number may stand for another
transaction, and the timeline gives that away; after a crash as well, and the server
has begun to count anew.

Source: PostgreSQL, "Transaction ID and Snapshot Information Functions"
(``pg_xact_status``); the first eight digits of a WAL file's name are the timeline.
"The Cumulative Statistics System": counters are kept over a clean shutdown, and reset
by a recovery after a crash, also where the postmaster has outlived it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from sqlalchemy import exc, text

from poolproof._log import Log
from poolproof.drivers.interruption import is_own
from poolproof.faults.error_info import read, unwrap
from poolproof.retry.state import add_note

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Connection, Engine

    from poolproof.retry.state import Course

__all__ = ["Mark", "ask", "is_of_connection", "mark"]

Status = Literal["committed", "aborted", "unknown"]

_log = Log("poolproof.retry")

_TIMELINE: Final = (
    "case when pg_is_in_recovery() then null"
    " else substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) end"
)
# As a number, since a text would depend on the session's time zone.
_COUNTS_FROM: Final = (
    "(select cast(extract(epoch from stats_reset) * 1000000 as bigint)"
    " from pg_stat_bgwriter)"
)
_MARK: Final = text(
    "select case when pg_is_in_recovery() then null"
    f" else cast(pg_current_xact_id() as text) end, {_TIMELINE}, {_COUNTS_FROM}"
)
_WHERE: Final = text(f"select {_TIMELINE}, {_COUNTS_FROM}")
_ASK: Final = text("select pg_xact_status(cast(cast(:xid as text) as xid8))")
_IN_THE_FUTURE: Final = "22023"
# A session that has lost its client may not know it, waiting for a lock or a standby,
# and its transaction is in progress for as long. It is known by the transaction that it
# has, so that no other session can be ended.
_END: Final = text(
    "select pg_terminate_backend(pid) from pg_stat_activity"
    " where pid <> pg_backend_pid() and cast(backend_xid as text)"
    " = cast(mod(cast(cast(:xid as text) as numeric), 4294967296) as text)"
)
_PATIENCE_S: Final = 30.0
"""How long to ask where there is no deadline."""

_END_AFTER_S: Final = 0.5
_FIRST_PAUSE_S: Final = 0.02
_LAST_PAUSE_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Mark:
    """A transaction that is about to commit.

    Attributes:
        xid: Its number, with the epoch; None on a standby, where nothing is written.
        timeline: The server's timeline; None on a standby.
        counts_from: Since when the server counts its statistics, in microseconds; None
            where it does not say.
    """

    xid: int | None
    timeline: str | None
    counts_from: int | None


def mark(connection: Connection) -> Mark:
    """Ask which transaction this is; one round trip.

    One that has written nothing is given a number: what a listener writes within the
    commit, and the notifications that the commit sends, are known by it.

    Args:
        connection: In the transaction.
    """
    xid, timeline, counts_from = connection.execute(_MARK).one()
    return Mark(None if xid is None else int(xid), timeline, counts_from)


def ask(
    engine: Engine,
    mark: Mark,
    course: Course,
    sleep: Callable[[float], object],
    error: Exception,
) -> Status:
    """Ask a new connection what became of a transaction.

    Args:
        engine: Where to ask.
        mark: The transaction, whose commit was sent.
        course: Its unit; the deadline bounds the asking, 30 s do without one.
        sleep: Waits for so many seconds.
        error: What the commit ended with.

    Returns:
        ``"committed"``; ``"aborted"``, also on a standby; or
        ``"unknown"`` when the server cannot say or does not answer in time.

    Raises:
        CommitOutcomeUnknown: A time limit of the caller's ended the asking: who repeats
            after that one's class must not repeat this.
        BaseException: So did what is no `Exception`; a note says what is not known.
    """
    if mark.xid is None:
        return "aborted"
    try:
        return _ask_on(engine, mark, course, sleep)
    except BaseException as interruption:
        unknown = course.unknown(mark.xid, error)
        if isinstance(interruption, Exception):
            add_note(unknown, f"the asking was ended by {type(interruption).__name__}")
            raise unknown from error
        add_note(interruption, str(unknown))
        raise


def _ask_on(
    engine: Engine, mark: Mark, course: Course, sleep: Callable[[float], object]
) -> Status:
    """Ask on new connections until one says it, or there is no more time."""
    began = time.monotonic()
    pause = _FIRST_PAUSE_S
    while True:
        is_stuck = time.monotonic() - began > _END_AFTER_S
        with course.bounded():
            status = _ask_once(engine, mark, end=is_stuck)
        if status is not None:
            return status
        left = course.left
        if left is None:
            left = _PATIENCE_S - (time.monotonic() - began)
        if left <= pause:
            return "unknown"
        sleep(pause)
        pause = min(_LAST_PAUSE_S, 2 * pause)


def is_of_connection(error: Exception, engine: Engine) -> bool:
    """Tell what a broken connection raises from an interruption of the caller.

    Args:
        error: What an engine, or one of its connections, has raised.
        engine: The engine; its pool may be any.
    """
    if isinstance(error, exc.SQLAlchemyError):
        return True
    signal = read(error, engine.dialect.driver)
    if signal.interruption:
        return False
    # asyncpg lets errors through that its adapter has no name for.
    return signal.dbapi or is_own(error, engine.pool)


def _ask_once(engine: Engine, mark: Mark, *, end: bool) -> Status | None:
    """Ask on one connection.

    Args:
        engine: Where to ask.
        mark: The transaction.
        end: Whether to end the session of a transaction that is in progress.

    Returns:
        What became of it, also where the connection breaks on its way back; None when
        it is to be asked again.

    Raises:
        Exception: An interruption of the caller.
    """
    status: Status | None = None
    try:
        with engine.connect() as connection:
            fresh = connection.execution_options(isolation_level="AUTOCOMMIT")
            status = _status(fresh, mark)
            if status is None and end:
                fresh.execute(_END, {"xid": str(mark.xid)})
    except Exception as error:
        if not is_of_connection(error, engine):
            raise
        # The server may be on its way back.
        _log.info(
            "Asking what became of transaction %d met %s; %s",
            mark.xid,
            type(error).__name__,
            "asking on" if status is None else f"it is {status}",
        )
    return status


def _status(fresh: Connection, mark: Mark) -> Status | None:
    """Ask once; None while the transaction is in progress, or the server a standby."""
    timeline, counts_from = fresh.execute(_WHERE).one()
    if timeline is None:
        return None
    if timeline != mark.timeline:
        return "unknown"  # after a failover the number may be another's
    try:
        status = fresh.scalar(_ASK, {"xid": str(mark.xid)})
    except exc.DBAPIError as error:
        if read(unwrap(error)).sqlstate != _IN_THE_FUTURE:
            raise
        # The server has crashed and lost it; soon another will have the number.
        return "aborted"
    if status == "aborted":
        # Also where another has had the number: then the first one was lost in a crash.
        return "aborted"
    is_ours = counts_from is not None and counts_from == mark.counts_from
    if is_ours and status == "in progress":
        return None
    # After a crash the number may be another's; too long ago, nobody knows it.
    return "committed" if is_ours and status == "committed" else "unknown"
