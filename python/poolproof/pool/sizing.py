"""How many connections a pool has: other bounds, all of them new, some ahead of need.

Slots are taken from the gate as the keeper takes them: never from a caller, and never
past one who waits. So all of this may be done at any time, in any thread.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypedDict

from sqlalchemy import exc

from poolproof import _checks, _native
from poolproof.fork import renewal
from poolproof.pool import maintenance, maintenance_thread
from poolproof.pool.entry import DRAINED

if TYPE_CHECKING:
    from poolproof.pool.entry import Entry
    from poolproof.pool.maintained import Maintained

__all__ = ["Limits", "checked", "drain", "limits", "resize", "warm"]


class Limits(TypedDict):
    """The bounds as the gate takes them; None is without bound.

    Attributes:
        kept: Connections that may rest.
        total: Connections that there may be.
    """

    kept: int | None
    total: int | None


def checked(size: Any, max_overflow: Any) -> tuple[int, int]:
    """Check the bounds of a pool.

    Args:
        size: `pool_size`.
        max_overflow: Connections allowed beyond.

    Returns:
        Both, -1 for an overflow without bound.

    Raises:
        ArgumentError: A value of the wrong type or outside its range.
    """
    size = _checks.integer(
        "pool_size",
        size,
        minimum=0,
        meaning="a whole number, 0 (no bound) or more",
    )
    max_overflow = _checks.integer(
        "max_overflow",
        max_overflow,
        minimum=None,
        meaning="a whole number; below 0 it sets no bound",
    )
    return size, -1 if size == 0 else max(-1, max_overflow)


def limits(bounds: tuple[int, int]) -> Limits:
    """Say the bounds as the gate takes them.

    Args:
        bounds: Connections kept, and allowed beyond.
    """
    size, max_overflow = bounds
    total = None if max_overflow == -1 else min(size + max_overflow, sys.maxsize)
    return {"kept": min(size, sys.maxsize) or None, "total": total}


def resize(pool: Maintained, size: Any, max_overflow: Any) -> None:
    """Give a pool other bounds; see `Pool.resize`.

    Args:
        pool: The pool.
        size: `pool_size`.
        max_overflow: Connections allowed beyond; None leaves them as they are.

    Raises:
        ArgumentError: A value of the wrong type or outside its range, or below
            `min_idle`.
    """
    before = pool.bounds[1]
    bounds = checked(size, before if max_overflow is None else max_overflow)
    pool.settings.check_with(pool_size=bounds[0], timeout=pool.timeout())
    pool.bounds = bounds
    while True:
        applied = pool.bounds
        try:
            waiters = pool._gate.resize(**limits(applied))
        except _native.Forked:
            renewal.renew(pool)
            continue
        for number in waiters:
            pool._waiters.wake(number)
        if applied is pool.bounds:  # else another thread has set some meanwhile
            break
    while (ticket := pool._gate.surplus()) is not None:
        maintenance.end(pool, ticket, "resized")
    if pool.settings.min_idle:
        maintenance_thread.look_at(pool)


def warm(pool: Maintained, count: Any) -> int:
    """Open connections ahead of need; see `Pool.warm`.

    Args:
        pool: The pool.
        count: How many are to rest.

    Returns:
        How many rest.

    Raises:
        ArgumentError: A number of the wrong type or outside its range.
        Exception: What connecting ended with.
    """
    if pool._is_asyncio:
        msg = "warm() is for poolproof.Pool: min_idle keeps some of an AsyncPool ready"
        raise exc.InvalidRequestError(msg)
    size = pool.bounds[0]
    meaning = f"a whole number, 0 to pool_size ({size})" if size else "0 or more"
    wanted = _checks.integer("count", count, minimum=0, meaning=meaning)
    if size and wanted > size:
        msg = f"count is {wanted}, but must be {meaning}: more would not be kept"
        raise exc.ArgumentError(msg)
    try:
        for _ in range(wanted):
            ticket = pool._gate.spare(wanted)
            if ticket is None:
                break
            pool._do_return_conn(maintenance.open_ahead(pool, ticket))
            pool.is_used = True
        return pool._gate.snapshot().idle
    except _native.Forked:
        renewal.renew(pool)
        return warm(pool, count)


def drain(pool: Maintained) -> int:
    """Replace every connection of a pool; see `Pool.drain`.

    Args:
        pool: The pool.

    Returns:
        How many were replaced here.

    Raises:
        Exception: What connecting ended with.
    """
    try:
        return _drain(pool)
    except _native.Forked:
        renewal.renew(pool)  # a child has none that could be old
        return 0


def _drain(pool: Maintained) -> int:
    old = {
        entry: entry.dbapi_connection
        for entry in pool.entries()
        if entry.dbapi_connection is not None
    }
    pool.drains += 1
    replaced = 0
    # What belongs to a loop nobody can open here: it is opened at need.
    resting = [] if pool._is_asyncio else list(pool._idle.items())
    for slot, entry in resting:
        if entry in old:
            replaced += _replace(pool, slot, old[entry])
    # Only now: what cannot be replaced is better than nothing. One that was lent, or
    # opened anew, in the middle of this is told by its connection.
    for entry, connection in old.items():
        if entry.dbapi_connection is connection:
            entry.expires_at = DRAINED
    if pool.next_look < 0:  # it has needed no keeper yet
        pool.next_look = maintenance.UNPLANNED
    maintenance_thread.look_at(pool)
    return replaced


def _replace(pool: Maintained, slot: int, connection: Any) -> bool:
    """Replace what rests in a slot, if it is still there."""
    if not _rests(pool, slot, connection):
        return False
    # Where the host's budget is used up, the old one has to make room.
    has_room = pool.budget is None or pool.budget.has_room()
    room = pool._gate.room() if has_room else None
    fresh = None if room is None else maintenance.open_ahead(pool, room)
    try:
        ticket = pool._gate.claim(slot)
        if ticket is None:
            return False
        if not _rests(pool, slot, connection):
            pool._waiters.wake(ticket.give_back())
            return False
        if fresh is not None:
            maintenance.end(pool, ticket, "drained")
            return True
        entry: Entry | None = ticket.take(pool._idle)
        if entry is None:  # the pool was disposed of meanwhile
            return False
        maintenance.retire(pool, entry, "drained")
        fresh = maintenance.open_ahead(pool, ticket)
        return True
    finally:
        if fresh is not None:
            pool._do_return_conn(fresh)


def _rests(pool: Maintained, slot: int, connection: Any) -> bool:
    entry = pool._idle.get(slot)
    return entry is not None and entry.dbapi_connection is connection
