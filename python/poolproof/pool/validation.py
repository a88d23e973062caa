"""Is a connection at rest? Nothing unread, no transaction open, the right answers.

A connection is looked at when it comes back and before it is lent: the driver's own
transaction status, and one peek at the socket, which cost no round trip. What those
cannot tell is asked: a nonce, bounded by `ping_timeout`. So is what has rested longer
than `ping_idle_after`, and with `pre_ping="always"` every connection.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from poolproof.drivers import backend
from poolproof.drivers.interruption import is_own
from poolproof.faults import events
from poolproof.faults.table import Fault, Verdict
from poolproof.fork import sockets
from poolproof.pool.deadlines import bounded
from poolproof.pool.entry import BUSY, FOREIGN, Entry

if TYPE_CHECKING:
    from poolproof.drivers.base import Driver

__all__ = ["at_checkout", "report", "report_foreign"]

DEAD = "dead"  # as `Socket.probe` says it
SILENT = "no_answer"
WRONG = "wrong_answer"

# Findings that nothing routine explains, with the cause that a report gives.
OUT_OF_STEP = {
    "desynchronised": "an idle connection has an answer that nobody waits for",
    WRONG: "an idle connection answered another question than it was asked",
}


def at_checkout(entry: Entry, now: float) -> str | None:
    """Look at a connection that is to be lent.

    Args:
        entry: Its entry.
        now: The time, on the monotonic clock.

    Returns:
        None when it is at rest, else the reason to discard it.
    """
    driver = entry.driver
    if driver.status(entry.dbapi_connection) != driver.idle:
        return DEAD if driver.has_ended(entry.dbapi_connection) else BUSY
    socket = entry.socket
    found = None if socket is None else socket.probe()
    if found is None:
        if not entry.suspect and now - entry.rested_at <= entry.owner.idle_after:
            return None
    elif found != "unknown":
        return found
    return _ping(entry, now)


def report(entry: Entry, finding: str) -> None:
    """Report a finding that nothing routine explains.

    A server that goes away is routine; answers to nobody's question are not.

    Args:
        entry: The entry of an idle connection.
        finding: What was found about it.
    """
    if finding in OUT_OF_STEP:
        cause = OUT_OF_STEP[finding]
        pid = backend.pid_of(entry)
        _report_corruption(cause, entry.driver.name, pid, entry.owner)


def report_foreign(connection: object, driver: Driver, pool: Any) -> None:
    """Report that the number of a connection's socket is somebody else's by now.

    Args:
        connection: A DBAPI connection.
        driver: The connection's driver.
        pool: The connection's pool.
    """
    cause = "a connection's descriptor was closed beside its driver"
    _report_corruption(cause, driver.name, driver.backend_pid(connection), pool)


def _report_corruption(cause: str, driver: str, pid: int | None, pool: Any) -> None:
    events.report(
        Verdict(
            fault=Fault.CORRUPTION,
            cost="connection",
            retry="reconnect",
            outcome="not_done",
            cause=cause,
        ),
        driver=driver,
        backend_pid=pid,
        pool=pool,
    )


def _ping(entry: Entry, now: float) -> str | None:
    if sockets.is_foreign(entry.dbapi_connection):
        return FOREIGN
    if entry.driver.is_of_another_hub(entry.dbapi_connection):
        return SILENT  # it would not answer here, now or at the next call
    limit = entry.owner.settings.ping_timeout
    if entry.due is not None:
        limit = max(0.0, min(limit, entry.due - now))
    totals = entry.owner.totals
    began = time.monotonic()
    try:
        with bounded(entry, "ping", limit):
            answered = entry.driver.ask(entry.dbapi_connection)
    except Exception as error:
        if not is_own(error, entry.owner):
            raise
        totals.pings.add(SILENT)
        entry.owner.logger.debug("Ping of %r failed: %r", entry.dbapi_connection, error)
        return SILENT
    finally:
        totals.timings.record_ping(time.monotonic() - began)
    if entry.socket is not None and entry.socket.expired is not None:
        totals.pings.add(SILENT)
        return SILENT  # the answer came at the last instant, and the socket is shut
    if not answered:
        totals.pings.add(WRONG)
        return WRONG
    totals.pings.add("ok")
    entry.suspect = entry.is_always_suspect
    entry.reason = None  # it was doubted, and a listener kept it
    entry.rested_at = time.monotonic()
    return None
