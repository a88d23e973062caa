"""Listening to faults, and overruling what they cost."""

from __future__ import annotations

import logging
import os
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from poolproof._checks import a_kind
from poolproof._log import Log, fields, printable
from poolproof.drivers.interruption import is_interruption
from poolproof.errors import ConnectionForked, DeadlineExceeded
from poolproof.faults import journal
from poolproof.faults.listeners import Listeners
from poolproof.faults.table import Fault, Verdict
from poolproof.faults.tallies import name_of, tallies_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.pool import Pool

__all__ = ["FaultEvent", "on_fault", "report"]

_log = Log("poolproof.guard")

# Faults after which the connection may answer what somebody else asked.
_OUT_OF_STEP = frozenset({Fault.CORRUPTION, Fault.INTERRUPTED})
_COSTS = ("nothing", "connection", "generation")  # cheapest first


@dataclass(frozen=True, slots=True)
class FaultEvent:
    """One fault, as the guard or the pool saw it.

    Attributes:
        fault: What the error means.
        verdict: What it is to cost, whether to repeat, what is known about the work.
        backend_pid: The server's process id of the session, when it is known.
        process_id: This process.
        driver: The driver's name.
        sqlstate: The SQLSTATE, when there was one.
        exception: The driver's own exception, whose text may hold user data; None where
            the pool saw the fault by itself, on a connection that nobody was using.
        when: The time, in UTC.
    """

    fault: Fault
    verdict: Verdict
    backend_pid: int | None
    process_id: int
    driver: str
    sqlstate: str | None
    exception: BaseException | None
    when: datetime


_listeners: Listeners[FaultEvent] = Listeners("on_fault")
_emitting: ContextVar[bool] = ContextVar("poolproof_emitting", default=False)


def on_fault(callback: Callable[[FaultEvent], object]) -> Callable[[], None]:
    """Call a function at each fault.

    It is called in the thread that met the fault, before the error reaches the caller,
    so it should be quick. What it raises is logged. A fault that it causes itself is
    logged and not given to listeners again.

    A `Verdict` that it returns takes the place of the event's. Functions are called in
    the order in which they were given here; each sees the verdict as it stands by then,
    and the last one that answers decides. A smaller cost is obeyed too, even of what
    SQLAlchemy takes for a disconnect; for a connection that may be out of step
    (corruption, an interruption) it is logged as a warning.

    Args:
        callback: Called with a `FaultEvent`. Returns a `Verdict` or None; anything else
            is logged and ignored.

    Returns:
        A function that ends the subscription; calling it again does nothing.

    Raises:
        TypeError: *callback* cannot be called.
    """
    return _listeners.add(callback)


def report(
    verdict: Verdict,
    *,
    driver: str,
    error: BaseException | None = None,
    sqlstate: str | None = None,
    backend_pid: int | None = None,
    pool: Pool | None = None,
) -> Verdict:
    """Give a fault to the listeners, and log it once.

    The line has no text of the driver's: that may hold values of the application.

    Args:
        verdict: What the table says.
        driver: The driver's name.
        error: The driver's exception, if there was one.
        sqlstate: The SQLSTATE, if there was one.
        backend_pid: The server's process id of the session, if it is known.
        pool: The pool that it came from, if that is known.

    Returns:
        The verdict that stands: *verdict*, or what a listener put in its place.
    """
    event = FaultEvent(
        fault=verdict.fault,
        verdict=verdict,
        backend_pid=backend_pid,
        process_id=os.getpid(),
        driver=driver,
        sqlstate=sqlstate,
        exception=error,
        when=datetime.now(timezone.utc),
    )
    final = _emit(event)
    name = name_of(pool) or None
    tallies_of(pool).faults.add(f"{final.fault.value}:{final.cost}")
    # A connection of the parent is no loss of this process, and the caller is told.
    harmless = final.cost == "nothing" or final.fault is Fault.FORKED
    if final.cost != "nothing" or final.fault is Fault.FORKED:
        _note(replace(event, fault=final.fault, verdict=final), error, name)
    passed = None if error is None else error.__cause__
    known = fields(
        pool=name,
        fault=final.fault.value,
        cost=final.cost,
        retry=final.retry,
        outcome=final.outcome,
        step=passed.step if isinstance(passed, DeadlineExceeded) else None,
        sqlstate=sqlstate,
        backend_pid=backend_pid,
        driver=driver,
        error=None if error is None else type(error).__qualname__,
    )
    _log.log(
        logging.INFO if harmless else logging.WARNING,
        "%s (%s)%s",
        _cause(final, error),
        ", ".join(_fields(replace(event, fault=final.fault, verdict=final), name)),
        "" if final is verdict else ", as a listener of on_fault decided",
        extra=known,
    )
    if verdict.fault in _OUT_OF_STEP and _is_cheaper(final, verdict):
        _log.warning(
            "a listener of on_fault kept a connection (backend pid %s) that may be out "
            "of step: %s",
            backend_pid or "unknown",
            verdict.cause,
            extra=known,
        )
    return final


def _note(event: FaultEvent, error: BaseException | None, pool: str | None) -> None:
    """Put a fault into the journal."""
    processes: tuple[int, ...] = (event.process_id,)
    if isinstance(error, ConnectionForked):
        processes = (error.parent_pid, error.child_pid)
    journal.note(
        "fault",
        _cause(event.verdict, error),
        pool=pool,
        fault=event.fault.value,
        cost=event.verdict.cost,
        retry=event.verdict.retry,
        outcome=event.verdict.outcome,
        sqlstate=event.sqlstate,
        backend_pid=event.backend_pid,
        processes=processes,
        driver=event.driver,
    )


def _fields(event: FaultEvent, pool: str | None) -> Iterator[str]:
    """Name what is known of a fault, and nothing that is not."""
    yield f"fault {event.fault.value}"
    yield f"cost {event.verdict.cost}"
    yield f"retry {event.verdict.retry}"
    yield f"outcome {event.verdict.outcome}"
    if event.sqlstate is not None:
        yield f"sqlstate {event.sqlstate}"
    if event.backend_pid is not None:
        yield f"backend pid {event.backend_pid}"
    yield f"process id {event.process_id}"
    if pool is not None:
        yield f"pool {printable(pool)}"
    yield f"driver {event.driver}"


def _cause(verdict: Verdict, error: BaseException | None) -> str:
    """Say the cause, with the numbers of a deadline that has passed."""
    passed = None if error is None else error.__cause__
    if isinstance(passed, DeadlineExceeded):
        return f"{verdict.cause} ({passed.step}, limit {passed.limit:g} s)"
    return verdict.cause


def _is_cheaper(one: Verdict, other: Verdict) -> bool:
    return _COSTS.index(one.cost) < _COSTS.index(other.cost)


def _emit(event: FaultEvent) -> Verdict:
    """Give an event to every listener; return the verdict that stands then."""
    if not _listeners or _emitting.get():
        return event.verdict
    try:
        # In here: an interruption may come when it is set, and would leave it so.
        _emitting.set(True)
        for callback in _listeners:
            try:
                answer = callback(event)
            except Exception as error:
                if is_interruption(error):
                    raise
                # Each is heard by itself. Its context is the driver's error, whose text
                # may hold user data.
                error.__suppress_context__ = True
                _log.exception("a listener of poolproof.on_fault failed")
                continue
            if isinstance(answer, Verdict):
                event = replace(event, fault=answer.fault, verdict=answer)
            elif answer is not None:
                _log.error(
                    "a listener of poolproof.on_fault returned %s, which is neither "
                    "a Verdict nor None; it is ignored",
                    a_kind(answer),
                )
    finally:
        _emitting.set(False)
    return event.verdict
