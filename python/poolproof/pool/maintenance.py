"""What the keeper does for one pool when it looks at it, and when it is to look again.

Close what rests and is too old or has rested too long, open what `min_idle` lacks, warn
of what is held for too long. A slot is taken before its connection is touched, and only
where nobody waits for one; so callers and keeper never have the same connection.
"""

from __future__ import annotations

import math
import random
import sys
import time
from typing import TYPE_CHECKING

from poolproof import _native
from poolproof._log import fields
from poolproof.pool import hold_warning, idle_hold
from poolproof.pool.deadlines import bounded

if TYPE_CHECKING:
    import weakref

    from poolproof._native import Ticket
    from poolproof.pool.entry import Entry
    from poolproof.pool.host_budget import HostBudget
    from poolproof.pool.maintained import Maintained
    from poolproof.pool.settings import Settings

__all__ = [
    "BUDGET_LOOK_S",
    "NEVER",
    "UNPLANNED",
    "Plan",
    "end",
    "expiry",
    "open_ahead",
    "retire",
    "tend",
]

# Later than any instant: there is nothing to look for, whatever comes to rest.
NEVER = sys.float_info.max
# Later still: whoever comes to rest next is to ask for a look.
UNPLANNED = math.inf
# How much a connection's greatest age differs, so that they do not all end together.
_JITTER = 0.1
# Between attempts to connect, in seconds.
_FIRST_RETRY_S = 0.05
_LAST_RETRY_S = 2.0
# Between looks whether others of the host wait for a connection, in seconds, and after
# which wait one is given to them that is in use all the time.
BUDGET_LOOK_S = 0.1
_LONG_WAIT_S = 0.25
# Between looks whether the server has let go of a connection that a loop has closed.
_LEAVING_LOOK_S = 0.005
# For a pool without a bound, in seconds: other pools wait meanwhile.
_CONNECTING_S = 35.0


class Plan:
    """What the keeper has in mind for one pool.

    Attributes:
        due: When to look at it, on the monotonic clock.
        pool: The pool, none once it is being collected. From Python 3.15 on a reference
            that tells nobody leads to it for longer, while others are told.
        asked: When to look again whatever the first look finds; 0 for no matter.
        failures: Failed attempts to connect in a row.
        retry_at: When to try to connect again.
    """

    __slots__ = ("asked", "due", "failures", "pool", "retry_at")

    def __init__(self, pool: weakref.ref[Maintained]) -> None:
        """Plan nothing yet.

        Args:
            pool: Tells the keeper when the pool is collected.
        """
        self.pool = pool
        self.due = UNPLANNED
        self.asked = 0.0
        self.failures = 0
        self.retry_at = 0.0


def expiry(settings: Settings) -> float:
    """Choose when a connection that is opened now becomes too old.

    Args:
        settings: The settings of its pool.

    Returns:
        An instant on the monotonic clock; `NEVER` for no bound.
    """
    if settings.max_lifetime is None:
        return NEVER
    spread = random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret
    return time.monotonic() + settings.max_lifetime * spread


def tend(pool: Maintained, plan: Plan) -> float:
    """Do what is due for one pool.

    Args:
        pool: The pool.
        plan: What is remembered of it between looks.

    Returns:
        When to look again, on the monotonic clock.

    Raises:
        Forked: The process was forked meanwhile, and this is the child.
    """
    holding = UNPLANNED
    if pool.settings.hold_warning is not None:
        holding = hold_warning.warn(pool, pool.entries(), time.monotonic())
    if pool.settings.minds_idle_holds:
        found = idle_hold.look(pool, pool.entries(), time.monotonic())
        holding = min(holding, found)
    _close_old(pool)
    opening = UNPLANNED
    if pool.settings.min_idle:
        opening = pool.open_ahead(lambda: _open_one(pool, plan))
    sharing = UNPLANNED if pool.budget is None else _share_out(pool, pool.budget)
    if pool.shares.settle():
        sharing = min(sharing, time.monotonic() + _LEAVING_LOOK_S)
    return min(holding, opening, sharing, _next_end(pool))


def _resting(pool: Maintained) -> list[tuple[float, int]]:
    """List since when which slots rest, longest first."""
    idle = pool._idle
    found = []
    for slot in list(idle):
        entry = idle.get(slot)
        if entry is not None:
            found.append((entry.rested_at, slot))
    return sorted(found)


def _close_old(pool: Maintained) -> None:
    """Close what rests and is too old, or has rested too long beyond `min_idle`."""
    settings = pool.settings
    for _rested_at, slot in _resting(pool):
        _close(pool, slot, "lifetime")
    if settings.max_idle is None:
        return
    resting = _resting(pool)
    for _rested_at, slot in resting[: max(0, len(resting) - settings.min_idle)]:
        if not _close(pool, slot, "idle"):
            return


def _has_reason(pool: Maintained, slot: int, reason: str) -> bool:
    """Tell whether there is this reason to close what rests in a slot."""
    entry = pool._idle.get(slot)
    if entry is None:
        return False
    now = time.monotonic()
    if reason == "lifetime":
        return entry.expires_at <= now
    limit = pool.settings.max_idle
    return limit is not None and entry.rested_at + limit <= now


def _close(pool: Maintained, slot: int, reason: str) -> bool:
    """Close the connection in a slot, if there is a reason and nobody took it."""
    if not _has_reason(pool, slot, reason):
        return False
    ticket = pool._gate.claim(slot)
    if ticket is None:
        return False
    if not _has_reason(pool, slot, reason):  # it was lent and came back meanwhile
        pool._waiters.wake(ticket.give_back())
        return False
    end(pool, ticket, reason)
    return True


def end(pool: Maintained, ticket: Ticket, reason: str) -> None:
    """Close what rests in a slot that was taken for that, and leave the slot empty.

    Args:
        pool: The pool.
        ticket: The slot's.
        reason: Why, as `PoolStats.discarded` counts it.
    """
    # Before the try: whoever is interrupted here still has the slot as it was.
    entry: Entry | None = ticket.take(pool._idle)
    try:
        if entry is not None:  # else the pool was disposed of meanwhile
            retire(pool, entry, reason)
    finally:
        pool._waiters.wake(ticket.vacate())


def retire(pool: Maintained, entry: Entry, reason: str) -> None:
    """Close the connection of an entry that rested, whatever a listener does.

    Args:
        pool: The pool.
        entry: The entry.
        reason: Why, as `PoolStats.discarded` counts it.
    """
    try:
        if entry.dbapi_connection is not None:
            entry.retire(reason)
    except Exception:
        pool.logger.exception(
            "poolproof: Closing a connection failed", extra=entry.fields(reason=reason)
        )


def _share_out(pool: Maintained, budget: HostBudget) -> float:
    """Give up what others of the host wait for; return when to look again.

    What rests beyond `min_idle` goes at once, and as much as is waited for. Where
    nothing rests, what comes back next goes once somebody has waited for long: a crowd
    of one process is not to keep out another's, nor are both to connect all the time.
    """
    held = len(pool.shares)
    if not held:
        return UNPLANNED
    beyond = held - pool.settings.min_idle
    asked_back = 0
    if beyond > 0 and budget.is_wanted(0.0):
        resting = _resting(pool)
        spare = resting[: max(0, min(beyond, len(resting) - pool.settings.min_idle))]
        wanted = sum(budget.parts().waiting.values())
        for _rested_at, slot in spare[:wanted]:
            ticket = pool._gate.claim(slot)
            if ticket is not None:
                end(pool, ticket, "host_budget")
        if not spare and budget.is_wanted(_LONG_WAIT_S):
            asked_back = 1
    pool._gate.ask_back(asked_back)
    return time.monotonic() + BUDGET_LOOK_S


def _may_open_at(pool: Maintained, plan: Plan, now: float) -> float:
    """Say when to open a connection ahead of need, if there is one to open."""
    least = pool.settings.min_idle
    fails = pool._connecting.failures > 0
    if not pool.is_used or len(pool._idle) >= least:
        plan.failures = plan.failures if fails else 0
        return UNPLANNED
    if not pool._gate.lacks(least):
        # The callers have it all; those who fail to connect leave something over.
        return now + _LAST_RETRY_S if fails else UNPLANNED
    # While connecting fails, callers are before us: they queue, and we do not.
    return max(plan.retry_at, pool._connecting.may_begin_at(now))


def _open_one(pool: Maintained, plan: Plan) -> float:
    """Open a connection ahead of need; return when to try again."""
    now = time.monotonic()
    begin_at = _may_open_at(pool, plan, now)
    if begin_at > now:
        return begin_at
    if pool.budget is not None and not pool.budget.has_room():
        return now + _LAST_RETRY_S  # others have it, and the metrics say so
    ticket = pool._gate.spare(pool.settings.min_idle)
    if ticket is None:
        return UNPLANNED
    if not pool.is_used:  # disposed of, before the slot was taken
        pool._waiters.wake(ticket.vacate())
        return UNPLANNED
    failure = None
    try:
        entry = open_ahead(pool, ticket, is_patient=False)
        pool._do_return_conn(entry)
        if entry.dbapi_connection is None and pool._idle.get(ticket.slot) is entry:
            failure = "it is not at rest"
    except _native.Forked:
        raise
    except Exception as error:  # noqa: BLE001 - the driver's own, of any class
        # Its words may hold what the application would not log.
        failure = type(error).__name__
    if failure is not None:
        return _retry_at(pool, plan, failure)
    if plan.failures:
        plan.failures = 0
        pool.logger.info(
            "poolproof: Connecting ahead of need works again",
            extra=fields(pool=pool.name()),
        )
    return now  # there may be more to open, when the other pools had their turn


def open_ahead(pool: Maintained, ticket: Ticket, *, is_patient: bool = True) -> Entry:
    """Open a connection in a slot that was taken for that.

    Args:
        pool: The pool.
        ticket: The slot's; it is the entry's from then on.
        is_patient: Whether to wait for a share of the host's budget.

    Returns:
        The entry, which is to be put back.

    Raises:
        Forked: The process was forked meanwhile, and this is the child.
        Exception: What connecting ended with; the slot is empty again.
    """
    now = time.monotonic()
    limit = pool._checkout_timeout
    due = now + (_CONNECTING_S if limit is None else limit)
    entry = pool._open_entry(ticket, now, due, is_patient=is_patient)
    try:
        _settle(pool, entry)
    except BaseException:
        pool._do_return_conn(entry)
        raise
    return entry


def _settle(pool: Maintained, entry: Entry) -> None:
    """End the transaction that a listener of the connect has left open, if any."""
    driver, connection = entry.driver, entry.dbapi_connection
    if connection is None or (
        driver.tells and driver.status(connection) == driver.idle
    ):
        return
    with bounded(entry, "rollback", pool.settings.reset_timeout):
        pool._dialect.do_rollback(connection)


def _retry_at(pool: Maintained, plan: Plan, failure: str) -> float:
    """Note a failed attempt to connect; return when to try again."""
    if not plan.failures:
        pool.logger.warning(
            "poolproof: Keeping %d connections ready in pool %s fails (%s); trying on",
            pool.settings.min_idle,
            pool.name(),
            failure,
            extra=fields(pool=pool.name(), error=failure),
        )
    delay = min(_LAST_RETRY_S, _FIRST_RETRY_S * 2 ** min(plan.failures, 10))
    plan.failures += 1
    plan.retry_at = time.monotonic() + delay * random.uniform(0.5, 1)  # noqa: S311
    return plan.retry_at


def _next_end(pool: Maintained) -> float:
    """Say when a connection next becomes too old, or has rested too long."""
    settings = pool.settings
    slots = pool._gate.snapshot()
    used = slots.idle + slots.lent
    if not used:
        return UNPLANNED
    now = time.monotonic()
    resting = _resting(pool)
    due = NEVER
    if settings.max_lifetime is not None:
        for entry in pool.entries():
            # Past for one that is out: it asks for a look when it comes back.
            if entry.dbapi_connection is not None and entry.expires_at > now:
                due = min(due, entry.expires_at)
        if any(_has_reason(pool, slot, "lifetime") for _rested_at, slot in resting):
            due = now  # since it was looked at
    if settings.max_idle is not None and used > settings.min_idle:
        # What is out may come to rest at any time, and no sooner than now.
        due = min(due, now + settings.max_idle)
        if len(resting) > settings.min_idle:
            due = min(due, max(now, resting[0][0] + settings.max_idle))
    return due
