"""The course of a unit of work that can be repeated: attempts, pauses, who hears of it.

`Course` decides and remembers; it neither sleeps nor calls, so that functions and
coroutines share it.
"""

from __future__ import annotations

import random
import threading
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from poolproof._log import Log, fields
from poolproof.drivers.interruption import is_interruption
from poolproof.errors import CommitOutcomeUnknown
from poolproof.faults import journal
from poolproof.faults.listeners import Listeners
from poolproof.pool.deadlines import deadline as bounding

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from poolproof.faults.table import Verdict

__all__ = ["AttemptEvent", "Backoff", "Course", "add_note", "name_of", "on_attempt"]

_log = Log("poolproof.retry")
_chance = random.SystemRandom()  # children of one parent must not agree
_ATTEMPTS_MOST = 1000
_NO_TIME_S = 1e-6
_UNBOUNDED = nullcontext()


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses of a random length between none and a bound that doubles ("full jitter").

    Attributes:
        first: The bound of the first pause, in seconds, 0 or more.
        most: No bound is greater, in seconds.
    """

    first: float = 0.05
    most: float = 2.0

    def __post_init__(self) -> None:
        """Refuse what is no length.

        Raises:
            ValueError: A bound below 0, or NaN, or `most` below `first`.
        """
        if not 0 <= self.first <= self.most:
            msg = f"a backoff needs 0 <= first <= most, in seconds, not {self}"
            raise ValueError(msg)

    def __call__(self, failures: int) -> float:
        """Choose a pause.

        Args:
            failures: Attempts that have failed, 1 or more.

        Returns:
            Seconds.
        """
        bound = min(self.most, self.first * 2.0 ** min(failures - 1, 60))
        return _chance.uniform(0, bound)


@dataclass(frozen=True, slots=True)
class AttemptEvent:
    """One attempt at a unit of work that can be repeated.

    Attributes:
        unit: The name of the function, or what the caller named it.
        attempt: Its number, 1 is the first.
        attempts: How many there may be.
        verdict: What the error means; None for an attempt that succeeded.
        error: What it ended with, whose text may hold user data; None for a success.
        elapsed: Since the first attempt began, in seconds.
        sleep: How long the pause is until the next attempt, in seconds; None when there
            is none.
    """

    unit: str
    attempt: int
    attempts: int
    verdict: Verdict | None
    error: BaseException | None
    elapsed: float
    sleep: float | None


_listeners: Listeners[AttemptEvent] = Listeners("on_attempt")


def on_attempt(callback: Callable[[AttemptEvent], object]) -> Callable[[], None]:
    """Call a function after each attempt of `run_transaction`, `retry` and `attempts`.

    It is called in the thread that made the attempt, before the pause. What it raises
    is logged.

    Args:
        callback: Called with an `AttemptEvent`; what it returns is ignored.

    Returns:
        A function that ends the subscription; calling it again does nothing.

    Raises:
        TypeError: *callback* cannot be called.
    """
    return _listeners.add(callback)


class Course:
    """The course of one unit of work: attempts so far, and whether there is another.

    Attributes:
        unit: What it is called in events and notes.
        attempt: The number of the attempt under way, 1 is the first.
        is_open: Whether it has not come to its end.
        outcome: What it has come to: ``"done"``, ``"not_done"``, ``"unknown"``; None
            until then.
    """

    __slots__ = (
        "_attempts",
        "_backoff",
        "_began",
        "_due",
        "_notes",
        "attempt",
        "is_open",
        "outcome",
        "unit",
    )

    def __init__(
        self,
        unit: str,
        attempts: int,
        deadline: float | None,
        backoff: Callable[[int], float],
    ) -> None:
        """Begin with the first attempt.

        Args:
            unit: What it is called.
            attempts: How many there may be, 1 or more.
            deadline: Seconds for all of them together, more than 0; None for no bound.
            backoff: Chooses the pause after so many failures, in seconds.

        Raises:
            TypeError: An argument of the wrong type.
            ValueError: One out of its range.
        """
        if type(attempts) is not int:
            msg = f"attempts is a whole number, not {attempts!r}"
            raise TypeError(msg)
        if not 1 <= attempts <= _ATTEMPTS_MOST:
            msg = f"attempts is between 1 and {_ATTEMPTS_MOST}, not {attempts}"
            raise ValueError(msg)
        if not callable(backoff):
            msg = f"backoff is a function of the failures so far, not {backoff!r}"  # type: ignore[unreachable]  # callers without types
            raise TypeError(msg)
        self.unit = unit
        self.attempt = 1
        self.is_open = True
        self.outcome: str | None = None
        self._attempts = attempts
        self._backoff = backoff
        self._notes: list[str] = []
        self._began = now = time.monotonic()
        # The block refuses what is no length.
        self._due = None if deadline is None else now + bounding(deadline).seconds

    def bounded(self) -> AbstractContextManager[object]:
        """Bound every call to the database inside a block by what is left."""
        left = self.left
        return _UNBOUNDED if left is None else bounding(left or _NO_TIME_S)

    @property
    def elapsed(self) -> float:
        """Seconds since the first attempt began."""
        return time.monotonic() - self._began

    @property
    def left(self) -> float | None:
        """Seconds that are left for all attempts; None without a deadline."""
        return None if self._due is None else max(0.0, self._due - time.monotonic())

    def succeeded(self) -> None:
        """Note that the attempt has succeeded."""
        self.outcome = "done"
        if _listeners or self.attempt > 1:
            self._tell(None, None, None)

    def unknown(self, xid: int | None, error: BaseException) -> CommitOutcomeUnknown:
        """Say that the unit may be done.

        Args:
            xid: Its transaction's number, where it was asked.
            error: What its commit ended with.

        Returns:
            The exception to be raised.
        """
        unknown = CommitOutcomeUnknown(self.unit, xid, self.elapsed)
        unknown.__cause__ = error
        return unknown

    def failed(
        self,
        error: BaseException,
        verdict: Verdict,
        *,
        repeat: bool,
        chosen: bool = False,
    ) -> float | None:
        """Note that the attempt has failed, and choose the pause before the next.

        Args:
            error: What it ended with. Where there is no other attempt, the failures
                before become notes of it (PEP 678).
            verdict: What that means.
            repeat: Whether the unit may be repeated.
            chosen: Whether the caller decides that, not the verdict.

        Returns:
            Seconds to wait before the next attempt; None when there is none.
        """
        pause: float | None = None
        if repeat and self.attempt < self._attempts:
            pause = _length(self._backoff(self.attempt))
            left = self.left
            if left is not None and pause >= left:
                pause = None
        self._tell(verdict, error, pause, chosen=chosen)
        if pause is None:
            self.outcome = verdict.outcome
            for note in self._notes:
                add_note(error, note)
            return None
        self._notes.append(
            f"attempt {self.attempt} of {self._attempts} at {self.unit} failed after "
            f"{self.elapsed:.2f} s: {_first_line(error)}"
        )
        self.attempt += 1
        return pause

    def _tell(
        self,
        verdict: Verdict | None,
        error: BaseException | None,
        sleep: float | None,
        *,
        chosen: bool = False,
    ) -> None:
        event = AttemptEvent(
            self.unit,
            self.attempt,
            self._attempts,
            verdict,
            error,
            self.elapsed,
            sleep,
        )
        if verdict is not None:
            # What decides; the outcome is not asked for where the caller does.
            decides = ", on= decides" if chosen else f", outcome {verdict.outcome}"
            # No text of the driver's: that may hold values of the application.
            _log.info(
                "Attempt %d of %d at %s failed after %.2f s (%s: %s%s); %s",
                event.attempt,
                event.attempts,
                event.unit,
                event.elapsed,
                verdict.fault,
                verdict.cause,
                decides,
                "not repeated" if sleep is None else f"repeated in {sleep:.2f} s",
                extra=fields(
                    fault=verdict.fault.value,
                    cost=verdict.cost,
                    outcome=verdict.outcome,
                    unit=event.unit,
                    attempt=event.attempt,
                ),
            )
        if verdict is not None or event.attempt > 1:
            self._note(event)
        for callback in _listeners:
            try:
                callback(event)
            except Exception as failure:
                if is_interruption(failure):
                    raise
                # Each is heard by itself. Its context is the attempt's error, whose
                # text may hold user data.
                failure.__suppress_context__ = True
                _log.exception("a listener of poolproof.on_attempt failed")

    @staticmethod
    def _note(event: AttemptEvent) -> None:
        """Put a repeated unit, or one that failed, into the journal."""
        verdict = event.verdict
        if verdict is None:
            cause = f"attempt {event.attempt} at {event.unit} succeeded"
        else:
            cause = f"attempt {event.attempt} at {event.unit} failed: {verdict.cause}"
        journal.note(
            "retry",
            cause,
            attempts=event.attempts,
            elapsed=event.elapsed,
            outcome=None if verdict is None else verdict.outcome,
            repeated_in=event.sleep,
        )


def add_note(error: BaseException, note: str) -> None:
    """Attach a note, also on Python 3.10, whose tracebacks do not show them.

    Args:
        error: The exception.
        note: One line.
    """
    notes = getattr(error, "__notes__", None)
    if isinstance(notes, list):
        notes.append(note)
    else:
        # An exception may be frozen, and refuse to be written to.
        BaseException.__setattr__(error, "__notes__", [note])


def _length(pause: float) -> float:
    """Make a pause of what a backoff has chosen; one below 0 is none.

    Raises:
        ValueError: Nobody can sleep for so long.
    """
    if not pause <= threading.TIMEOUT_MAX:
        msg = f"backoff chose {pause!r}, and no pause can be as long (in seconds)"
        raise ValueError(msg)
    return max(0.0, float(pause))


def _first_line(error: BaseException) -> str:
    try:
        text = str(error).strip().splitlines()
    except Exception:  # noqa: BLE001 - any class may have any __str__
        text = []
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def name_of(function: object) -> str:
    """Return what a function is called in events and notes."""
    return str(getattr(function, "__qualname__", None) or type(function).__name__)
