"""Whole transactions that are repeated only where nothing of them is done.

`run_transaction` knows what it was doing when an error came: opening, the caller's unit
of work, or the commit. With that the fault table says what became of the transaction;
what a lost commit came to is asked of the server (`commits`), or left unknown.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import exc
from sqlalchemy.engine import Connection, Engine

from poolproof._checks import a_kind
from poolproof.errors import CommitOutcomeUnknown
from poolproof.faults import error_info, table
from poolproof.faults.table import Fault, Verdict
from poolproof.faults.tallies import count_unit
from poolproof.retry import commit_status
from poolproof.retry.attempt import ConnectionAttempt
from poolproof.retry.state import Backoff, Course, name_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from poolproof.faults.error_info import Phase
    from poolproof.retry.attempt import Attempt, Stage

__all__ = ["run_transaction", "run_transaction_async"]

Result = TypeVar("Result")

# Repeated only when asked: to wait once more for a lock may be the last thing wanted.
_WHEN_ASKED = frozenset({Fault.LOCK_TIMEOUT})
# What an idempotent unit may be repeated after, though it may be done.
_LOSSES = frozenset(
    {Fault.TERMINATED, Fault.SHUTDOWN, Fault.CONNECTION_LOST, Fault.POOLER}
)
_BACKOFF = Backoff()
# SQLAlchemy's code of "Can't reconnect until invalid transaction is rolled back".
_INVALID = "8s2b"


def run_transaction(
    bind: Any,
    fn: Callable[[Any], Result],
    *,
    attempts: int = 4,
    deadline: float | None = None,
    backoff: Callable[[int], float] = _BACKOFF,
    isolation_level: str | None = None,
    verify_commit: bool = False,
    idempotent: bool = False,
    also: Fault | Iterable[Fault] = (),
) -> Result:
    """Run a unit of work in one transaction, and repeat it while nothing of it is done.

        poolproof.run_transaction(engine, lambda connection: transfer(connection, 100))

    The unit is called with a connection or a session, and may be called several times:
    whatever it does beside the database is done as often. It leaves commit and rollback
    to this function. Each attempt begins with a checkout of its own.

    Repeated is what the fault table calls not done: a connection that broke before the
    commit, a serialization failure, a deadlock, a server that cannot be reached yet. A
    commit whose answer was lost is never repeated blindly.

    Args:
        bind: An `Engine`; a `sessionmaker`, a `scoped_session` or a Flask-SQLAlchemy
            ``db``.
        fn: The unit of work, called with a `Connection` or a `Session`.
        attempts: How often it is tried, 1 to 1000.
        deadline: Seconds for all attempts together, pauses included; every call to the
            database inside is bounded by it, as by `poolproof.deadline`. None for no
            bound.
        backoff: Chooses the pause after so many failures, in seconds.
        isolation_level: For this transaction, such as ``"SERIALIZABLE"``; None is the
            engine's. ``"AUTOCOMMIT"`` is refused.
        verify_commit: Ask for the transaction's number before the commit (one more
            round trip), so that the server can be asked what became of it when the
            answer to the commit is lost. PostgreSQL 13 or newer.
        idempotent: Says that doing the unit twice does no harm: then it is repeated
            also where it may be done.
        also: Faults that are repeated when nothing is done, which are not by
            themselves: `Fault.LOCK_TIMEOUT`, `Fault.CANCELLED`.

    Returns:
        What *fn* returned.

    Raises:
        CommitOutcomeUnknown: The answer to the commit was lost, and what became of it
            could not be found out; not repeated.
        TypeError: An argument of the wrong type, a coroutine function.
        ValueError: A number out of its range.
        sqlalchemy.exc.InvalidRequestError: The session has a transaction already, or
            this is part of another such unit; the unit ended its transaction itself.
        Exception: What the last attempt ended with, the failures before as notes.
    """
    _refuse_coroutine_function(fn)
    course = Course(name_of(fn), attempts, deadline, backoff)
    rules = _Rules(_begin_on(bind, isolation_level), verify_commit, idempotent, also)
    return _run(course, rules, fn, time.sleep)  # type: ignore[no-any-return]


async def run_transaction_async(
    bind: Any,
    fn: Callable[[Any], Awaitable[Result]],
    *,
    attempts: int = 4,
    deadline: float | None = None,
    backoff: Callable[[int], float] = _BACKOFF,
    isolation_level: str | None = None,
    verify_commit: bool = False,
    idempotent: bool = False,
    also: Fault | Iterable[Fault] = (),
) -> Result:
    """Do the same as `run_transaction` for asyncio.

    Args:
        bind: An `AsyncEngine`, an `async_sessionmaker` or an `async_scoped_session`.
        fn: The unit of work, a coroutine function, called with an `AsyncConnection` or
            an `AsyncSession`.
        attempts: As there; so are the others.
        deadline: Seconds for all attempts together. Calls to the database inside are
            bounded by it only where the pool is a `poolproof.Pool`.
        backoff: As there.
        isolation_level: As there.
        verify_commit: As there.
        idempotent: As there.
        also: As there.

    Returns:
        What the coroutine returned.

    Raises:
        CommitOutcomeUnknown: As there; so are the others.
        TypeError: An argument of the wrong type, a function that is no coroutine's.
    """
    from sqlalchemy.util import greenlet_spawn  # noqa: PLC0415

    from poolproof.retry import async_attempt  # noqa: PLC0415 - of use to few

    _refuse_autocommit(isolation_level)
    begin = async_attempt.begin_on(bind, isolation_level)
    if begin is None:
        raise TypeError(_wrong_bind("run_transaction_async", bind, _ASYNC_BINDS))
    course = Course(name_of(fn), attempts, deadline, backoff)
    rules = _Rules(begin, verify_commit, idempotent, also)
    awaiting = async_attempt.awaiting(fn, course.unit)
    return await greenlet_spawn(_run, course, rules, awaiting, async_attempt.pause)


class _Rules:
    """What holds for every attempt."""

    __slots__ = ("also", "begin", "idempotent", "verify")

    def __init__(
        self,
        begin: Callable[[], Attempt],
        verify: bool,
        idempotent: bool,
        also: Fault | Iterable[Fault],
    ) -> None:
        for name, value in (("verify_commit", verify), ("idempotent", idempotent)):
            if not isinstance(value, bool):
                msg = f"{name} is True or False, not {value!r}"  # type: ignore[unreachable]  # callers without types
                raise TypeError(msg)
        self.begin = begin
        self.verify = verify
        self.idempotent = idempotent
        self.also: frozenset[Fault] = frozenset()
        if also != ():
            given: Any = also  # callers without types
            several = isinstance(given, Iterable) and not isinstance(given, Fault)
            named = list(given) if several else [given]
            if not all(isinstance(one, Fault) for one in named):
                msg = f"also is a Fault or several, not {also!r}"
                raise TypeError(msg)
            if Fault.INTERRUPTED in named:
                msg = "also cannot be Fault.INTERRUPTED: who interrupts wants it to end"
                raise ValueError(msg)
            self.also = frozenset(named)

    def allow(self, stage: Stage, verdict: Verdict) -> bool:
        """Tell whether the unit may be repeated."""
        if stage == "done":
            return False
        if verdict.outcome == "not_done":
            if verdict.fault in self.also:
                return True
            return verdict.retry != "never" and verdict.fault not in _WHEN_ASKED
        return self.idempotent and verdict.fault in _LOSSES


# The unit that is under way in this thread or task.
_running: ContextVar[Course | None] = ContextVar("poolproof_unit", default=None)


def _run(
    course: Course,
    rules: _Rules,
    fn: Callable[[Any], Any],
    sleep: Callable[[float], object],
) -> Any:
    outer = _running.get()
    if outer is not None and outer.is_open:
        msg = (
            f"{course.unit} would run inside {outer.unit}, and be done again whenever "
            "that is repeated: make it part of the outer unit, or run it afterwards"
        )
        raise exc.InvalidRequestError(msg)
    attempt: Attempt | None = None
    try:
        # In here: an interruption may come when it is set, and would leave it so.
        _running.set(course)
        while True:
            attempt = rules.begin()
            try:
                with course.bounded():
                    attempt.run(fn, verify=rules.verify)
                    course.succeeded()
                    return attempt.result
            except Exception as error:  # noqa: BLE001 - judged, and raised again
                pause = _settle(course, rules, attempt, error, sleep)
                if pause is None:
                    return attempt.result
            sleep(pause)
    finally:
        course.is_open = False
        _running.set(outer)
        count_unit(attempt, course.outcome, course.attempt)


def _settle(
    course: Course,
    rules: _Rules,
    attempt: Attempt,
    error: Exception,
    sleep: Callable[[float], object],
) -> float | None:
    """Find out what a failed attempt came to.

    Returns:
        The pause before the next one; None when the transaction is done all the same.

    Raises:
        Exception: The error, or that the outcome is unknown.
    """
    if attempt.stage == "done" and attempt.is_over(error):
        course.succeeded()
        return None
    verdict = _judge(attempt, error)
    is_interrupted = verdict.fault is Fault.INTERRUPTED
    lost = attempt.stage == "commit" and verdict.outcome == "unknown"
    if lost and attempt.mark and attempt.engine and not is_interrupted:
        try:
            status = commit_status.ask(
                attempt.engine, attempt.mark, course, sleep, error
            )
        except CommitOutcomeUnknown as ended:
            course.failed(ended, verdict, repeat=False)
            raise
        if status == "committed":
            course.succeeded()
            return None
        if status == "aborted":
            verdict = replace(verdict, retry="whole_unit", outcome="not_done")
            lost = False
    may = rules.allow(attempt.stage, verdict)
    if lost and not may and not is_interrupted:
        xid = None if attempt.mark is None else attempt.mark.xid
        unknown = course.unknown(xid, error)
        course.failed(unknown, verdict, repeat=False)
        raise unknown
    pause = course.failed(error, verdict, repeat=may)
    if pause is None:
        raise error
    return pause


def _judge(attempt: Attempt, error: Exception) -> Verdict:
    """Say what an error means, with what is known of the attempt."""
    stage = attempt.stage
    original = error_info.unwrap(error)
    signal = error_info.read(original)
    disconnect = getattr(error, "connection_invalidated", False) is True
    verdict = table.judge(
        signal,
        phase=_phase(attempt, error, original),
        read_only=attempt.read_only,
        disconnect=disconnect,
    )
    if isinstance(error, exc.PendingRollbackError) and error.code == _INVALID:
        # The connection broke earlier, and the unit went on with it.
        verdict = table.appraise(Fault.CONNECTION_LOST, phase="statement")
    if stage == "done":
        return replace(verdict, retry="never", outcome="done")
    if stage == "unit" and attempt.ended_itself:
        return replace(verdict, retry="never", outcome="unknown")
    if stage == "commit" and attempt.spans_several:
        # The commits of the others may be done.
        return replace(verdict, retry="never", outcome="unknown")
    of_driver = signal.dbapi or signal.by_driver or signal.interruption
    if stage != "open" and verdict.fault is Fault.NONE and not of_driver:
        # The unit's own, or a listener's before the commit was sent.
        return replace(verdict, outcome="not_done")
    return verdict


def _phase(attempt: Attempt, error: Exception, original: BaseException) -> Phase:
    """Say what was being done when an error came."""
    statement = getattr(error, "statement", None)
    phase = error_info.phase_of(original, statement, autocommit=False)
    if attempt.stage == "open":
        return phase if phase in {"connect", "ping"} else "begin"
    if attempt.stage == "unit":
        return "unknown" if phase == "commit" else phase
    # What a listener wrote is flushed within the commit, before it is sent.
    return phase if phase in {"begin", "statement"} else "commit"


# --- arguments ------------------------------------------------------------------------

_BINDS = "an Engine, a sessionmaker, a scoped_session or a Flask-SQLAlchemy db"
_ASYNC_BINDS = "an AsyncEngine, an async_sessionmaker or an async_scoped_session"


def _begin_on(bind: Any, isolation_level: str | None) -> Callable[[], Attempt]:
    _refuse_autocommit(isolation_level)
    if isinstance(bind, Engine):
        return lambda: ConnectionAttempt(bind, isolation_level)
    from poolproof.retry import session_attempt  # noqa: PLC0415 - an application may do without

    begin = session_attempt.begin_on(bind, isolation_level)
    if begin is None:
        raise TypeError(_wrong_bind("run_transaction", bind, _BINDS))
    return begin


def _wrong_bind(function: str, bind: object, wanted: str) -> str:
    from sqlalchemy.orm import Session  # noqa: PLC0415 - for the words alone

    from poolproof.retry import session_attempt  # noqa: PLC0415

    why = ""
    # Nobody has something async who has not imported it; the import needs greenlet.
    asyncio = sys.modules.get("sqlalchemy.ext.asyncio")
    pinned: tuple[type, ...] = (Connection, Session)
    makers: tuple[type, ...] = ()
    if asyncio is not None:
        pinned += (asyncio.AsyncConnection, asyncio.AsyncSession)
        makers = (
            asyncio.AsyncEngine,
            asyncio.async_sessionmaker,
            asyncio.async_scoped_session,
        )
    if isinstance(bind, pinned):
        why = ": each attempt needs a checkout of its own"
    elif isinstance(bind, makers):
        why = "; for those there is run_transaction_async"
    elif isinstance(bind, Engine) or session_attempt.begin_on(bind, None) is not None:
        why = "; for those there is run_transaction"
    return f"{function} needs {wanted}, not {a_kind(bind)}{why}"


def _refuse_autocommit(isolation_level: str | None) -> None:
    if isolation_level is None:
        return
    if not isinstance(isolation_level, str):
        msg = f"isolation_level is a text, not {isolation_level!r}"  # type: ignore[unreachable]  # callers without types
        raise TypeError(msg)
    if isolation_level.replace("_", " ").strip().upper() == "AUTOCOMMIT":
        msg = "isolation_level AUTOCOMMIT leaves no transaction that could be repeated"
        raise ValueError(msg)


def _refuse_coroutine_function(fn: object) -> None:
    if not callable(fn):
        msg = f"the unit of work is a function, not {fn!r}"
        raise TypeError(msg)
    if inspect.iscoroutinefunction(fn):
        msg = (
            f"{name_of(fn)} is a coroutine function: await "
            "run_transaction_async(async_engine, fn) instead"
        )
        raise TypeError(msg)
    if inspect.isgeneratorfunction(fn):
        msg = (
            f"{name_of(fn)} is a generator function, whose work would be done after "
            "the commit: make it a function that returns a list"
        )
        raise TypeError(msg)
