"""Connecting without a stampede: who may try, and when, while the server is away.

While all is well everybody connects at once. After a failure one caller at a time
tries, and not before the backoff says so; the others stand in a queue, each within the
deadline of its own checkout. The first success lets all of them go. With
`fail_fast_after` a breaker opens after so many failures: then nobody stands in a queue,
and whoever comes before the next attempt is due is refused at once.

The queue is a gate with one slot, the turn. It belongs to the frame of the caller who
has it, so that whatever interrupts the caller passes it on.
"""

from __future__ import annotations

import copy
import random
import time
from time import monotonic
from typing import TYPE_CHECKING

from poolproof import _native
from poolproof.errors import BreakerOpen, DeadlineExceeded
from poolproof.sleepers import Sleepers, locks_are_replaced

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine.interfaces import DBAPIConnection

    from poolproof.entry import Entry

__all__ = ["Connecting"]

# From the beginning of a failed attempt to the next one: a random time between these,
# whose upper end doubles with each round.
_BACKOFF_LEAST_S = 0.05
_BACKOFF_MOST_S = 2.0
_ROUNDS_THAT_COUNT = 6  # more would double nothing but a large number
# Who has the turn looks this often whether somebody else has succeeded meanwhile.
_LOOK_AGAIN_S = 0.05

_chance = random.SystemRandom()  # children of one parent must not agree


class Connecting:
    """How one pool connects, in one process.

    Attributes:
        failures: Attempts that have failed in a row.
    """

    __slots__ = (
        "_error",
        "_failed_at",
        "_failing_since",
        "_gate",
        "_limit",
        "_next_at",
        "_recovered_at",
        "_rounds",
        "_sleepers",
        "failures",
    )

    def __init__(self, fail_fast_after: int | None) -> None:
        """Begin in good health.

        Args:
            fail_fast_after: Failures in a row that open the breaker; None for never.
        """
        self._limit = fail_fast_after
        self._gate = _native.Gate(kept=None, total=1, lifo=False)
        self._sleepers = Sleepers()
        self.failures = 0
        self._rounds = 0
        self._error: BaseException | None = None
        self._failing_since = self._failed_at = self._next_at = 0.0
        self._recovered_at = 0.0

    @property
    def breaker_open(self) -> bool:
        """Whether callers are refused until an attempt succeeds."""
        return self._limit is not None and self.failures >= self._limit

    def may_begin_at(self, now: float) -> float:
        """Say when somebody who is in no hurry may try, and be in nobody's way.

        Args:
            now: The time, on the monotonic clock.

        Returns:
            An instant; past or `now` is at once.

        Raises:
            Forked: The process was forked meanwhile, and this is the child.
        """
        if not self.failures:
            return now
        _idle, trying, *_ = self._gate.snapshot()
        return now + _BACKOFF_MOST_S if trying else self._next_at

    def renewed(self) -> Connecting:
        """Make what a child goes on with: nothing has failed, and nobody waits."""
        self._sleepers.wake_all()
        return Connecting(self._limit)

    def open(
        self, create: Callable[[Entry], DBAPIConnection], entry: Entry
    ) -> DBAPIConnection:
        """Connect, at once or when it is this caller's turn.

        Args:
            create: Connects.
            entry: For whom; `entry.due` bounds the wait.

        Returns:
            The connection.

        Raises:
            PoolTimeout: The checkout's time was over before an attempt could begin.
            BreakerOpen: The breaker is open, and no attempt is due.
            Forked: The process was forked meanwhile, and this is the child.
            Exception: What the attempt itself ended with.
        """
        if not self.failures:
            return self._attempt(create, entry)
        turn = None
        try:
            turn = self._wait_for_turn(entry)
            return self._attempt(create, entry)
        finally:
            if turn is not None:
                self._sleepers.wake(turn.vacate())

    def _attempt(
        self, create: Callable[[Entry], DBAPIConnection], entry: Entry
    ) -> DBAPIConnection:
        began = monotonic()
        if entry.due is not None and entry.due <= began:
            raise self._too_late(entry, began)
        try:
            connection = create(entry)
        except Exception as error:
            self._failed(began, error)
            raise
        if self.failures:
            self._recovered()
        return connection

    def _failed(self, began: float, error: Exception) -> None:
        """Count a failed attempt, and say when the next one is due."""
        if began < self._recovered_at:
            return  # what has happened since counts
        now = monotonic()
        if not self.failures:
            self._failing_since = began
            self._rounds = 0
        if not self._rounds or began >= self._failed_at:
            # Of attempts that ran side by side the first failure is for all.
            self._rounds = min(self._rounds + 1, _ROUNDS_THAT_COUNT)
            most = min(_BACKOFF_MOST_S, _BACKOFF_LEAST_S * 2**self._rounds)
            self._next_at = began + _chance.uniform(_BACKOFF_LEAST_S, most)
        self._failed_at = now
        self._error = _without_frames(error)
        # The interpreter changes threads at calls and jumps, and here is none.
        self.failures += 1

    def _recovered(self) -> None:
        self._recovered_at = monotonic()
        self._error = None
        self._rounds = 0
        self.failures = 0

    # --- the queue ------------------------------------------------------------------

    def _wait_for_turn(self, entry: Entry) -> _native.Ticket | None:
        """Wait until this caller may try.

        Returns:
            The turn, or None when all is well again and nobody needs one.
        """
        turn = None
        try:
            turn = self._gate.acquire() or self._stand_in_queue(entry)
            if self._wait_until_due(entry, turn):
                return turn
        except BaseException:
            # The error may keep this frame, and with it the turn.
            if turn is not None:
                self._sleepers.wake(turn.vacate())
            raise
        self._sleepers.wake(turn.vacate())
        return None

    def _wait_until_due(self, entry: Entry, turn: _native.Ticket) -> bool:
        """Wait, having the turn, until the next attempt is due.

        Returns:
            Whether it is; False when all is well again.
        """
        while self.failures:
            now = monotonic()
            wait = self._next_at - now
            if turn.used:
                raise _native.Forked
            if wait <= 0:
                return True
            if self.breaker_open:
                raise self._refusal(entry, wait)
            if entry.due is not None:
                wait = min(wait, entry.due - now)
                if wait <= 0:
                    raise self._too_late(entry, now)
            time.sleep(min(wait, _LOOK_AGAIN_S))
        return False

    def _stand_in_queue(self, entry: Entry) -> _native.Ticket:
        now = monotonic()
        if self.breaker_open:
            raise self._refusal(entry, self._next_at - now)
        limit = None if entry.due is None else max(0.0, entry.due - now)
        if locks_are_replaced():
            turn = self._sleepers.wait(self._gate, limit)
        else:
            turn = self._gate.wait(limit)
        if turn is None:
            raise self._too_late(entry, monotonic())
        return turn

    # --- what callers are told --------------------------------------------------------

    def _too_late(self, entry: Entry, now: float) -> Exception:
        """Make the error of a caller whose time was over before it could try."""
        failures, cause = self.failures, self._error
        reason = ""
        if cause is not None:
            reason = (
                f"connecting has failed {_times(failures)} in a row, for "
                f"{now - self._failing_since:.1f} s, and one caller at a time tries "
                f"again; the last error: {_first_line(cause)}"
            )
        error = entry.owner._timed_out(now - entry.began, reason)
        limit = now if entry.due is None else entry.due
        error.__cause__ = cause or DeadlineExceeded("checkout", limit - entry.began)
        return error

    def _refusal(self, entry: Entry, wait: float) -> BreakerOpen:
        """Make the error of a caller who comes while the breaker is open."""
        cause = self._error
        error = BreakerOpen(
            entry.owner.name(),
            self.failures,
            monotonic() - self._failing_since,
            max(0.0, wait),
            "" if cause is None else _first_line(cause),
        )
        error.__cause__ = cause
        return error


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _first_line(error: BaseException) -> str:
    text, _, _ = str(error).strip().partition("\n")
    return text or type(error).__name__


def _without_frames(error: BaseException) -> BaseException:
    """Copy an error that is to be remembered: its own frames would stay alive too."""
    try:
        copied = copy.copy(error)
    except Exception:  # noqa: BLE001 - somebody's own class, with its own idea of it
        copied = None
    if type(copied) is not type(error) or copied is error:
        copied = ConnectionError(f"{type(error).__name__}: {_first_line(error)}")
    if isinstance(error.__cause__, DeadlineExceeded):
        copied.__cause__ = copy.copy(error.__cause__)
    return copied
