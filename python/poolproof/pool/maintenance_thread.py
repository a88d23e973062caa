"""The keeper: the thread of a process that maintains the connections at rest.

It closes those that are too old or have rested too long, opens some ahead of need, and
warns of those that are held for too long. It runs only while something of this will be
due, and sleeps until then: callers wake it only for what is due before its next look,
which costs them one comparison otherwise.

When nothing will be due any more it lingers for a second before it ends: a task that
disposes of its engine is often followed by another, and to start a thread for each one
costs more than all else that the pool does for it. What is not due sooner than that
does not wake it.

Nothing here waits for a lock: requests are put into a dictionary, in one step. A child
process begins with a new keeper, at its first need.

Long, because it is one idea: when the thread runs, sleeps and ends.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from poolproof import _native
from poolproof._log import Log
from poolproof._service_thread import ServiceThread
from poolproof.pool import hold_warning, idle_hold, maintenance
from poolproof.pool.activity import IdleHold
from poolproof.pool.maintenance import NEVER, UNPLANNED, Plan

if TYPE_CHECKING:
    from poolproof.pool.entry import Entry
    from poolproof.pool.maintained import Maintained
    from poolproof.pool.settings import Settings

__all__ = [
    "first_look",
    "let_go",
    "look_at",
    "look_at_budget",
    "look_at_resting",
    "on_checkin",
    "on_checkout",
]

NAME = "poolproof-keeper"
_AFTER_ERROR_S = 10.0
_LONGEST_SLEEP_S = 1_000_000.0
# How long the thread waits for something to do before it ends.
LINGERS_S = 1.0
_JOIN_S = 0.2
# When a pool is looked at that was disposed of: at once, and nothing that it has asked
# for before counts.
_DISPOSED = -1.0

_log = Log("poolproof.keeper")


def first_look(settings: Settings) -> float:
    """Say what `Pool.next_look` begins with.

    Args:
        settings: The pool's settings.

    Returns:
        An instant before all others when the pool needs no keeper, else one after.
    """
    needed = (
        settings.max_idle is not None
        or settings.max_lifetime is not None
        or settings.hold_warning is not None
        or settings.minds_idle_holds
        or settings.min_idle > 0
        or settings.host_budget is not None
    )
    return UNPLANNED if needed else -math.inf


def on_checkout(pool: Maintained, entry: Entry) -> None:
    """Note a checkout of a pool that minds them.

    Args:
        pool: The pool.
        entry: What was checked out.
    """
    settings = pool.settings
    if pool.has_strands:
        entry.ticket.name_strand(pool.strand())
    if settings.hold_warning is not None or settings.minds_idle_holds:
        warning = settings.hold_warning
        hold = hold_warning.Hold(math.inf if warning is None else warning, pool)
        due = hold.due
        if settings.minds_idle_holds:
            hold.idle = IdleHold(time.monotonic())
            due = min(due, idle_hold.first_look(settings))
        entry.held = hold
        if due < pool.next_look:
            look_at(pool, due)
    elif pool.nests.seen:
        entry.held = hold_warning.Hold(math.inf, pool)
    if settings.min_idle and (
        not entry.rested_at or len(pool._idle) < settings.min_idle
    ):
        with contextlib.suppress(_native.Forked):  # by a listener of the checkout
            _ask_for_more(pool, opened=not entry.rested_at)


def _ask_for_more(pool: Maintained, *, opened: bool) -> None:
    """Have connections opened ahead of need, once the pool is in use."""
    if opened:
        out = pool._gate.snapshot().lent
        if out:  # else it was disposed of meanwhile
            pool.is_used = True
    if opened or pool._gate.lacks(pool.settings.min_idle):
        look_at(pool)


def on_checkin(pool: Maintained, entry: Entry) -> None:
    """Note a check-in to a pool that minds them.

    Args:
        pool: The pool.
        entry: What is about to rest.
    """
    entry.held = None
    if pool.settings.idle_hold_timeout is not None and entry.socket is not None:
        entry.socket.disarm(_native.HOLD)  # see idle_hold
    if entry.dbapi_connection is None and pool.settings.min_idle:
        entry.expires_at = 0.0  # empty: to be replaced at once


def look_at(pool: Maintained, due: float = 0.0) -> None:
    """Have the keeper look at a pool, and start it if it does not run.

    Args:
        pool: The pool.
        due: When at the latest, on the monotonic clock.
    """
    if pool.next_look < 0:
        return
    generation = _native.generation()
    keeper = _keepers.get(generation)
    if keeper is None:
        keeper = _keepers.setdefault(generation, MaintenanceThread(generation))
        for older in list(_keepers):
            if older != generation:
                _keepers.pop(older, None)
    keeper.ask(pool, due)


def look_at_resting(pool: Maintained, entry: Entry) -> None:
    """Have the keeper look at a pool when what has come to rest is too old, or earlier.

    Args:
        pool: The pool.
        entry: What rests.
    """
    settings = pool.settings
    due = entry.expires_at
    if settings.max_idle is not None:
        due = min(due, time.monotonic() + settings.max_idle)
    look_at(pool, 0.0 if settings.min_idle else due)


def look_at_budget(pool: Maintained) -> None:
    """Have the keeper look whether others wait for what a pool has opened.

    Args:
        pool: A pool with a budget of its host.
    """
    due = time.monotonic() + maintenance.BUDGET_LOOK_S
    if due < pool.next_look:
        look_at(pool, due)


def let_go(pool: Maintained) -> None:
    """Have the keeper end, if this pool was all that it had to look after.

    Args:
        pool: A pool whose connections have been closed.
    """
    if pool.next_look < 0:
        return
    if pool.next_look > 0:
        pool.next_look = UNPLANNED
    keeper = _keepers.get(_native.generation())
    if keeper is not None and not keeper.expects_nothing_of(pool) and keeper.runs:
        keeper.ask(pool, _DISPOSED)


class MaintenanceThread:
    """The thread, what it was asked, and what it has planned.

    Attributes:
        lingers_until: When it looks whether there is something to do again, and ends if
            there is nothing, on the monotonic clock; 0 while it has something to do.
    """

    __slots__ = (
        *("_again_s", "_asked", "_generation", "_thread", "_wakeup"),
        "lingers_until",
    )

    def __init__(self, generation: int) -> None:
        """Make a keeper that does not run yet.

        Args:
            generation: Of the process that it is for.
        """
        self._generation = generation
        # Each request is put in and taken out in one step; 0 is at once, and so is
        # `_DISPOSED`.
        self._asked: dict[weakref.ref[Maintained], float] = {}
        self._thread = ServiceThread(NAME, self._run, self._start_again)
        self._wakeup: Any = None
        # How soon to see whether those are still there that were met lately.
        self._again_s = LINGERS_S
        self.lingers_until = 0.0

    @property
    def runs(self) -> bool:
        """Whether there is a thread, or one is being started."""
        return self._thread.runs

    def ask(self, pool: Maintained, due: float) -> None:
        """Note a request, and see to it that somebody reads it.

        Args:
            pool: The pool to look at.
            due: When at the latest; 0 and `_DISPOSED` are at once.
        """
        reference = weakref.ref(pool)
        if due > 0:
            # Whoever asked before is due sooner, or is to look at everything.
            self._asked.setdefault(reference, due)
        else:
            self._asked[reference] = due
        if self._thread.runs:
            # Read after the request was put: who lingers reads it after setting this.
            if not 0.0 < self.lingers_until <= due:
                self.wake()
        elif not _ending and not sys.is_finalizing():
            # Later a thread may be made, but would not begin, and starting it waits.
            self._start()

    def expects_nothing_of(self, pool: Maintained) -> bool:
        """Have what a pool asked for looked at once, and not when it was due.

        Also where no thread runs: one that has just ended starts another for it.

        Args:
            pool: A pool whose connections have been closed.

        Returns:
            Whether it will be by a thread that lingers: it still has to read what was
            asked for.
        """
        reference = weakref.ref(pool)
        if reference not in self._asked:
            return False
        self._asked[reference] = _DISPOSED
        # Read after it was put: who lingers reads it after setting this.
        return self.lingers_until > 0

    def _start(self) -> None:
        try:
            self._thread.start(self._prepare)
        except RuntimeError as error:
            # No thread is to be had, now; the next request tries again.
            if not _ending:
                _log.warning("The keeper cannot start: %s", error)

    def _prepare(self) -> None:
        # Of the kind that is in use now: gevent may have replaced them since.
        wakeup = threading.Lock()
        wakeup.acquire()
        self._wakeup = wakeup

    def wake(self) -> None:
        """Have the thread look at once."""
        wakeup = self._wakeup
        if wakeup is not None and wakeup.locked():
            with contextlib.suppress(RuntimeError):  # another caller woke it
                wakeup.release()

    def join(self, seconds: float) -> None:
        """Wait for the thread's end, for so many seconds at most."""
        self._thread.join(seconds)

    def _collected(self, _reference: object) -> None:
        if self._generation == _native.generation():
            self.wake()

    # --- the thread -----------------------------------------------------------------

    def _run(self) -> None:
        plans: dict[weakref.ref[Maintained], Plan] = {}
        try:
            self._work(plans)
        except BaseException as error:
            if self._goes_on():
                _log.exception("The keeper was ended, and starts again when needed")
            if not isinstance(error, Exception | SystemExit):
                raise
        finally:
            _forget(plans)

    def _start_again(self) -> None:
        if self._asked and self._goes_on():
            self._start()

    def _goes_on(self) -> bool:
        """Tell whether this is still the process and the time for it."""
        return not _ending and self._generation == _native.generation()

    def _work(self, plans: dict[weakref.ref[Maintained], Plan]) -> None:
        """Look at what is due, and sleep until the next, until nothing ever is."""
        wakeup = self._wakeup
        while self._goes_on():
            self._read_requests(plans)
            due = self._look_at_all(plans)
            if self._asked:
                continue
            if due >= NEVER:
                self._linger()
                if not self._asked:
                    return
                continue
            left = due - time.monotonic()
            if left > 0:
                # From Python 3.15 on a pool is still found while it is collected, and
                # who meets it then is not told of its end: so it is looked for again,
                # ever later.
                wakeup.acquire(True, min(left, self._again_s, _LONGEST_SLEEP_S))
                self._again_s = min(2 * self._again_s, _LONGEST_SLEEP_S)

    def _linger(self) -> None:
        """Wait for something to do that is due soon, or for the end of the waiting."""
        begun = time.monotonic()
        try:
            while self._goes_on():
                self.lingers_until = begun + LINGERS_S
                left = self.lingers_until - time.monotonic()
                if left <= 0 or self._asked:
                    return
                # Who woke it may have been late: what it asked was read before.
                self._wakeup.acquire(True, left)
        finally:
            self.lingers_until = 0.0

    def _read_requests(self, plans: dict[weakref.ref[Maintained], Plan]) -> None:
        while self._asked:
            try:
                reference, due = self._asked.popitem()
            except KeyError:  # taken back meanwhile
                return
            pool = reference()
            if pool is None:
                continue
            plan = plans.get(reference)
            if plan is None:
                self._again_s = LINGERS_S
                plan = Plan(weakref.ref(pool, self._collected))
                plans[reference] = plan
                # What else there is to do for this pool shows only a look.
                plan.asked, due = due, 0.0
            elif due == _DISPOSED:  # and what was asked before was read a moment ago
                plan.asked = 0.0
            plan.due = min(plan.due, max(due, 0.0))
            pool.next_look = plan.due

    def _look_at_all(self, plans: dict[weakref.ref[Maintained], Plan]) -> float:
        """Look at the pools that are due; return when the next one is."""
        next_due = UNPLANNED
        for reference, plan in list(plans.items()):
            if not self._goes_on():
                break
            if plan.due <= time.monotonic():
                self._look(plan)
            if plan.due >= NEVER or plan.pool() is None:
                plans.pop(reference, None)
            else:
                next_due = min(next_due, plan.due)
        return next_due

    def _look(self, plan: Plan) -> None:
        pool = plan.pool()
        if pool is None:
            return
        # From here on whoever brings something due asks for another look.
        pool.next_look = plan.due = UNPLANNED
        try:
            due = maintenance.tend(pool, plan)
        except _native.Forked:
            return  # this is a child
        except Exception:  # noqa: BLE001 - of a listener or a driver, of any class
            _log.exception("Looking after pool %s failed", pool.name())
            due = time.monotonic() + _AFTER_ERROR_S
        if plan.asked > 0:
            due, plan.asked = min(due, plan.asked), 0.0
        plan.due = due
        if self._goes_on():
            pool.next_look = due


def _forget(plans: dict[weakref.ref[Maintained], Plan]) -> None:
    """Have the pools ask again: nobody is going to look at them."""
    for plan in plans.values():
        pool = plan.pool()
        if pool is not None and pool.next_look > 0:
            pool.next_look = UNPLANNED


# The keeper of this process, by its generation: a child's is another one.
_keepers: dict[int, MaintenanceThread] = {}
_ending = False


def _end() -> None:
    """Let the thread end before the interpreter does."""
    global _ending  # noqa: PLW0603 - the state of this process
    _ending = True
    keeper = _keepers.get(_native.generation())
    if keeper is None:
        return
    keeper.wake()
    # Ctrl-C ends the waiting; the interpreter would print it as an error.
    with contextlib.suppress(KeyboardInterrupt):
        keeper.join(_JOIN_S)


# Also where no keeper runs yet: what the interpreter tears down comes back to a pool.
atexit.register(_end)
