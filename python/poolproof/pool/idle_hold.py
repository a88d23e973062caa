"""Who holds a connection, has no statement under way, and waits for something else.

`idle_hold_warning` logs once where such a connection was checked out, and
`idle_hold_timeout` shuts it. The keeper looks a few times within each limit, and counts
from the first look that found nothing going on (`activity`): a connection is never said
to be idle for longer than it was.
"""

from __future__ import annotations

import contextlib
import math
import time
from typing import TYPE_CHECKING, Any

from poolproof import _native
from poolproof._log import fields
from poolproof.drivers import backend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from poolproof.pool.entry import Entry
    from poolproof.pool.hold_warning import Hold
    from poolproof.pool.owner import Owner
    from poolproof.pool.settings import Settings

__all__ = ["first_look", "install", "look"]

# Between looks, in seconds; a fifth of a limit that is shorter.
_LONGEST_LOOK_S = 1.0
_SHORTEST_LOOK_S = 0.02
# From the decision to the shutting, in seconds: who gives it back meanwhile is spared.
_GRACE_S = 0.05
# SQLAlchemy's verbs, by what they are given: a cursor, or a connection.
_STATEMENTS = ("do_execute", "do_executemany", "do_execute_no_params")
_ENDS = ("do_commit", "do_commit_twophase", "do_prepare_twophase")


def first_look(settings: Settings) -> float:
    """Say when to look first at what is checked out now, on the monotonic clock.

    Args:
        settings: The pool's.
    """
    limits = (settings.idle_hold_warning, settings.idle_hold_timeout)
    return time.monotonic() + _pause(min(filter(None, limits)))


def _pause(limit: float) -> float:
    return max(_SHORTEST_LOOK_S, min(_LONGEST_LOOK_S, limit / 5))


def look(pool: Owner, entries: Iterable[Entry], now: float) -> float:
    """Warn of what is held with nothing going on, and shut it.

    Args:
        pool: The pool that lent the connections.
        entries: Its entries.
        now: The time, on the monotonic clock.

    Returns:
        When to look again, on the monotonic clock; infinite where nothing is held.
    """
    settings = pool.settings
    warning = settings.idle_hold_warning or math.inf
    timeout = settings.idle_hold_timeout or math.inf
    next_due = math.inf
    for entry in entries:
        hold = entry.held
        idle = None if hold is None else hold.idle
        if hold is None or idle is None or idle.is_ended:
            continue
        if idle.goes_on(entry.dbapi_connection, entry.driver):
            idle.since = now
        rests_s = now - idle.since
        if rests_s >= warning and not idle.is_warned_of:
            idle.is_warned_of = True
            _warn(pool, entry, hold, rests_s, now)
        if rests_s >= timeout and _end(entry, hold):
            continue
        limits = [timeout] if idle.is_warned_of else [warning, timeout]
        shortest = min(limits)
        if shortest != math.inf:
            due = min(idle.since + limit for limit in limits)
            next_due = min(
                next_due, now + _pause(shortest), max(due, now + _SHORTEST_LOOK_S)
            )
    return next_due


def _warn(pool: Owner, entry: Entry, hold: Hold, rests_s: float, now: float) -> None:
    pool.logger.warning(
        "poolproof: A connection of pool %s (backend pid %s) is held and has had no "
        "statement under way for %.2f s: return it before waiting for something else. "
        "It is held by %s",
        pool.name(),
        backend.pid_of(entry) or "unknown",
        rests_s,
        hold.describe(now).rstrip(),
        extra=fields(
            pool=pool.name(), backend_pid=backend.pid_of(entry), **hold.surroundings
        ),
    )


def _end(entry: Entry, hold: Hold) -> bool:
    """Have the watchdog shut a connection, unless it comes back in this very instant.

    Its holder disarms what is armed after it has taken `held` away, so either it sees
    this, or this sees that.
    """
    watched = entry.socket
    if watched is None or hold.idle is None:
        return False
    hold.idle.is_ended = True
    watched.arm(_native.HOLD, _GRACE_S)
    if entry.held is not hold:
        watched.disarm(_native.HOLD)
        if entry.held is not None:  # the next holder, whose bound that may have been
            entry.bound_holding()
    return True


def install(dialect: Any, entry_type: type) -> None:
    """Have the statements of a dialect's connections noted. Idempotent.

    Args:
        dialect: The dialect instance of one engine.
        entry_type: The class of the pool's entries.
    """
    if getattr(dialect.do_commit, "is_noted", False):
        return
    for names, wrap in ((_STATEMENTS, _noted), (_ENDS, _noted_end)):
        for name in names:
            verb = getattr(dialect, name, None)  # SQLAlchemy's stand-in lacks some
            if verb is not None:
                setattr(dialect, name, wrap(verb, entry_type))


def _noted(verb: Callable[..., None], entry_type: type) -> Callable[..., None]:
    def noted(cursor: Any, *args: Any, **kwargs: Any) -> None:
        context = kwargs.get("context", args[-1] if args else None)
        root = getattr(context, "root_connection", None)
        fairy = getattr(root, "_dbapi_connection", None)
        entry = getattr(fairy, "_connection_record", None)
        with _under_way(entry, entry_type):
            verb(cursor, *args, **kwargs)

    return noted


def _noted_end(verb: Callable[..., None], entry_type: type) -> Callable[..., None]:
    def noted(connection: Any, *args: Any, **kwargs: Any) -> None:
        fairy = getattr(connection, "_dbapi_connection", connection)
        entry = getattr(fairy, "_connection_record", None)
        with _under_way(entry, entry_type):
            verb(connection, *args, **kwargs)

    noted.is_noted = True  # type: ignore[attr-defined]
    return noted


@contextlib.contextmanager
def _under_way(entry: Any, entry_type: type) -> Iterator[None]:
    hold = getattr(entry, "held", None) if type(entry) is entry_type else None
    idle = None if hold is None else hold.idle
    if idle is None:
        yield
        return
    idle.executing += 1
    try:
        yield
    finally:
        idle.executing -= 1
        idle.executed += 1
