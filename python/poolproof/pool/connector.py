"""Connecting without a stampede: who may try, and when, while the server is away.

While all is well everybody connects at once, and so it is while attempts fail by
chance: a balancer with one dead server of three refuses a third of them, and who is
told of a refusal without having asked fails more often than need be. When eight in a
row have failed the server is away. Then one attempt begins at a time, before long twice
a second, made by the first caller to come when it is due; what it ends with is the
answer to everybody who waits for a connection to be opened. Who comes in between gets
the last answer at once, as a fresh copy that says how old it is, unless
`connect_retry_for` says that it would rather wait. The first success lets everybody
connect. With `fail_fast_after` a breaker opens after so many failures: then the answer
is `BreakerOpen`.

What belongs to a caller is held by its frame, as a ticket of a gate: the right to begin
(one slot, held for a few instructions) and its attempt (as many as there are). So
whatever interrupts the caller gives both back.
"""

from __future__ import annotations

import random
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any

from poolproof import _native
from poolproof.errors import BreakerOpen, DeadlineExceeded
from poolproof.pool import family, took
from poolproof.pool.connect_failure import ConnectFailure, times

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine.interfaces import DBAPIConnection

    from poolproof.pool.entry import Entry

__all__ = ["Connecting", "Resting"]

# So many failures in a row may be chance. Those that are under way count as well: a
# refusal comes sooner than a success. Where callers would rather wait nobody is told
# without need, and the first failure is enough.
_BY_CHANCE = 7
# From the beginning of one attempt to the next, once the server is away: the next
# caller may try at once, then after a pause, and so on. The longest is what an attempt
# may take before another begins beside it. It is also how long the last answer stays
# news after an attempt was due that nobody made; then everybody connects, as while all
# is well, until an attempt fails again.
_PAUSES_S = (0.0, 0.1, 0.25, 0.5)
_LONGEST_S = _PAUSES_S[-1]
# Who waits looks this often by itself: an interruption may have kept one from ringing.
_LOOK_AGAIN_S = 0.25

_chance = random.SystemRandom()


class Resting(Exception):  # noqa: N818 - no error: it never leaves the pool
    """A connection came to rest while its finder waited for one to be opened."""


class Connecting:
    """How one pool connects, in one process.

    Attributes:
        bells: A lock for each caller that waits; released when there is news for it.
    """

    __slots__ = (
        "_began_at",
        "_by_chance",
        "_failed_ever",
        "_failing_since",
        "_failures",
        "_gate",
        "_is_away",
        "_last",
        "_limit",
        "_make_bell",
        "_next_at",
        "_recovered_at",
        "_retry_for",
        "_rights",
        "_rounds",
        "bells",
    )

    def __init__(
        self,
        fail_fast_after: int | None,
        retry_for: float,
        make_bell: Callable[[], Any] = threading.Lock,
    ) -> None:
        """Begin in good health.

        Args:
            fail_fast_after: Failures in a row that open the breaker; None for never.
            retry_for: How long a checkout would rather wait than be told that
                connecting fails, in seconds from its beginning.
            make_bell: Makes a lock of the callers' own kind.
        """
        self._make_bell = make_bell
        self._limit = fail_fast_after
        self._retry_for = retry_for
        self._by_chance = 0 if retry_for else _BY_CHANCE
        # One ticket for each attempt that is under way.
        self._gate = _native.Gate(kept=None, total=None, lifo=False)
        self._rights = _native.Gate(kept=None, total=1, lifo=False)
        self.bells: dict[int, Any] = {}
        self._failures = _native.Counter()
        self._is_away = False
        self._last: ConnectFailure | None = None
        self._failed_ever = _native.Counter()
        self._rounds = 0  # of attempts that began after the server was found to be away
        self._failing_since = self._began_at = self._next_at = 0.0
        self._recovered_at = 0.0

    @property
    def failures(self) -> int:
        """How many attempts have failed in a row."""
        return self._failures.value

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
        return now + _LONGEST_S if self._under_way() else self._next_at

    def renewed(self) -> Connecting:
        """Make what a child goes on with: nothing has failed, and nobody waits."""
        self.ring()
        return Connecting(self._limit, self._retry_for, self._make_bell)

    def ring(self) -> None:
        """Have all who wait look at what has changed, and take their bells down.

        So one that an interrupted caller has left is not rung for ever.
        """
        for key in list(self.bells):
            bell = self.bells.pop(key, None)
            if bell is not None and bell.locked():
                bell.release()

    def open(
        self, create: Callable[[Entry], DBAPIConnection], entry: Entry
    ) -> DBAPIConnection:
        """Connect, at once or when an attempt is due.

        Args:
            create: Connects.
            entry: For whom; `entry.due` bounds the wait.

        Returns:
            The connection.

        Raises:
            PoolTimeout: The checkout's time was over before an attempt could begin.
            BreakerOpen: The breaker is open, and no attempt is due.
            Resting: A connection of the pool came to rest meanwhile, and the entry can
                do without one of its own.
            Forked: The process was forked meanwhile, and this is the child.
            Exception: What the attempt itself ended with, or a copy of what another
                one has.
        """
        attempt = None
        while True:
            try:
                attempt = self._wait(entry) if self.failures else self._gate.acquire()
                return self._attempt(create, entry)
            except Exception:
                if attempt is None or not self._goes_on(entry):
                    raise
            finally:
                # An error may keep this frame, and with it the attempt.
                if attempt is not None:
                    attempt.vacate()
                if self.bells:
                    self.ring()
            attempt = None

    def _goes_on(self, entry: Entry) -> bool:
        """Tell whether a caller whose own attempt has failed would rather wait."""
        if not self._retry_for or self._last is None or self.breaker_open:
            return False
        now = monotonic()
        return (
            self._last.is_for_all
            and self._last.may_change
            and now < entry.began + self._retry_for
            and (entry.due is None or now < entry.due)
        )

    def _attempt(
        self, create: Callable[[Entry], DBAPIConnection], entry: Entry
    ) -> DBAPIConnection:
        began = monotonic()
        if entry.due is not None and entry.due <= began:
            raise self._too_late(entry, began)
        family.note(entry.owner)
        totals = entry.owner.totals
        try:
            connection = create(entry)
        except Exception as error:
            totals.connects.add("failed")
            if took.listeners:
                took.tell(entry.owner, "connect", monotonic() - began, error)
            self._failed(began, error)
            raise
        totals.connects.add("ok")
        totals.timings.record_connect(seconds := monotonic() - began)
        if took.listeners:
            took.tell(entry.owner, "connect", seconds)
        if self.failures:
            self._recovered()
        return connection

    def _failed(self, began: float, error: Exception) -> None:
        """Count a failed attempt, and keep what it says to the others."""
        if began < self._recovered_at:
            return  # what has happened since counts
        last = ConnectFailure(error, monotonic())
        if not self.failures:
            # Of attempts that ran side by side the first failure is for all.
            self._failing_since = self._began_at = began
            self._rounds = 0
        self._last = last
        self._failed_ever.add()
        # This one is still under way itself.
        enough = self._by_chance + self._under_way() if self._by_chance else 1
        self._failures.add()
        self._is_away = self._is_away or self.failures >= enough
        pause = _LONGEST_S if self.breaker_open else _pause(self._rounds)
        self._next_at = self._began_at + pause

    def _recovered(self) -> None:
        self._recovered_at = monotonic()
        self._last = None
        self._is_away = False
        self._failures.reset()

    # --- waiting --------------------------------------------------------------------

    def _wait(self, entry: Entry) -> _native.Ticket:
        """Wait until this caller may try, or is answered by another's attempt.

        Returns:
            Its attempt.
        """
        attempt = bell = None
        met = self._failed_ever.value
        try:
            while True:
                now = monotonic()
                attempt = self._begin(now)
                if attempt is not None:
                    return attempt
                seconds = self._patience(entry, now, met)
                if bell is None:
                    bell = self._make_bell()
                    bell.acquire()
                elif id(bell) in self.bells:
                    bell.acquire(True, seconds)
                    continue
                # Then look again: what has happened before it hung does not ring it.
                self.bells[id(bell)] = bell
        except BaseException:
            if attempt is not None:
                attempt.vacate()
            raise
        finally:
            if bell is not None:
                self.bells.pop(id(bell), None)

    def _begin(self, now: float) -> _native.Ticket | None:
        """Begin an attempt, if one is due and nobody else begins it."""
        last = self._last
        if not self.failures or last is None:
            return self._gate.acquire()
        if not self.breaker_open and self._asks_by_itself(last, now):
            return self._gate.acquire()
        if now < self._next_at:
            return None
        right = self._rights.acquire()
        if right is None:
            return None
        attempt = None
        try:
            if now >= self._next_at:
                # In this order: who finds none due finds one under way.
                attempt = self._gate.acquire()
                self._began_at = now
                self._rounds += 1
                self._next_at = now + _LONGEST_S
        finally:
            right.vacate()
        return attempt

    def _patience(self, entry: Entry, now: float, met: int) -> float:
        """Say how long to wait for news, in seconds, or answer the caller.

        Args:
            entry: The caller's.
            now: The time, on the monotonic clock.
            met: How many attempts had failed when the caller came.
        """
        under_way = self._under_way()
        next_in = self._next_at - now
        if self.breaker_open:
            raise self._refusal(entry, 0.0 if under_way else next_in)
        if entry.may_rest and entry.owner.has_idle():
            raise Resting
        last = self._last
        if last is None:
            return 0.0  # all is well again
        patience = entry.began + self._retry_for - now if last.may_change else 0.0
        waits = not (under_way or next_in <= 0) or self._failed_ever.value != met
        if waits and patience <= 0:
            raise last.again(now, self.failures, max(0.0, next_in))
        left = _LOOK_AGAIN_S
        if entry.due is not None:
            left = min(left, entry.due - now)
            if left <= 0:
                raise self._too_late(entry, now)
        if next_in > 0:
            left = min(left, next_in)
        return min(left, patience) if patience > 0 else left

    def _asks_by_itself(self, last: ConnectFailure, now: float) -> bool:
        """Tell whether the last failure says nothing to a caller who comes now."""
        return not self._is_away or not last.is_for_all or self._is_past(last, now)

    def _is_past(self, last: ConnectFailure, now: float) -> bool:
        """Tell whether a failure is too old to say anything of the server as it is."""
        return now - max(last.at, self._next_at) > _LONGEST_S

    def _under_way(self) -> int:
        """Count the attempts that are under way."""
        return self._gate.snapshot().lent

    # --- what callers are told --------------------------------------------------------

    def _too_late(self, entry: Entry, now: float) -> Exception:
        """Make the error of a caller whose time was over before it could try."""
        failures, last = self.failures, self._last
        reason = ""
        if last is not None:
            reason = (
                f"connecting has failed {times(failures)} in a row, for "
                f"{now - self._failing_since:.1f} s, and one caller at a time tries "
                f"again; the last error: {last.first_line}"
            )
        waited = now - entry.began
        error = entry.owner.timed_out(waited, reason, spent_on="connect")
        limit = now if entry.due is None else entry.due
        cause = None if last is None else last.error
        error.__cause__ = cause or DeadlineExceeded("checkout", limit - entry.began)
        return error

    def _refusal(self, entry: Entry, wait: float) -> BreakerOpen:
        """Make the error of a caller who comes while the breaker is open."""
        last = self._last
        entry.owner.totals.timeouts.add("breaker")
        error = BreakerOpen(
            entry.owner.name(),
            self.failures,
            monotonic() - self._failing_since,
            max(0.0, wait),
            "" if last is None else last.first_line,
        )
        error.__cause__ = None if last is None else last.error
        return error


def _pause(rounds: int) -> float:
    """Say how long after the last attempt began the next one is due, in seconds."""
    if rounds >= len(_PAUSES_S) - 1:
        return _LONGEST_S
    # The children of one parent are not to try in step.
    return _PAUSES_S[rounds] * _chance.uniform(0.5, 1.0)
