"""Pools of one name, and what those have counted that are gone.

An engine that is disposed of has another pool, which goes on with the counts of the one
before; an engine that is dropped takes its pool away, and no number that was shown may
fall for that. So what a pool counts is known here from its first attempt to connect on,
and what those that are gone have counted is added up under their name.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from poolproof import _native
from poolproof.fork import renewal
from poolproof.pool.totals import Totals

if TYPE_CHECKING:
    from poolproof.pool.owner import Owner

__all__ = ["GONE_MOST", "OTHER", "Seen", "by_name", "note"]

GONE_MOST = 64
"""Names of which the counts are kept after the last pool of that name has gone."""

OTHER = "other"
"""Under which name the counts of all others are added up, which would be without end:
an engine for each tenant."""

# So many pools may have gone before they are looked for, where nobody looks at metrics.
_UNSEEN_MOST = 64


class Seen:
    """What is known in this process. A child begins with nothing.

    Attributes:
        generation: Of the process.
        totals: Those of pools that there were at the last look or have connected since,
            with their names.
        gone: What pools have counted that are gone, by name.
        most: So many are known before it is looked which of them are gone.
        lock: Held for as long as counts go from one to the other: who looks finds them
            in one of both. A destructor that connects may come into the midst of it, so
            the thread that has it may take it again.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.generation = _native.generation()
        self.totals: dict[int, tuple[str, Totals]] = {}
        self.gone: dict[str, Totals] = {}
        self.most = _UNSEEN_MOST
        self.lock = threading.RLock()


_seen = Seen()


def note(pool: Owner) -> None:
    """Keep what a pool counts, beyond its life. Idempotent.

    Args:
        pool: One that is about to connect.
    """
    seen = _current()
    key = id(pool.totals)
    if key in seen.totals:
        return
    if len(seen.totals) >= seen.most:
        _put_away(seen)
        seen.most = 2 * len(seen.totals) + _UNSEEN_MOST
    seen.totals.setdefault(key, (pool.name(), pool.totals))


def by_name() -> tuple[list[tuple[list[Any], Totals]], dict[str, Totals]]:
    """Return what the pools of this process have counted, those of one name together.

    Returns:
        Pools, and what they and those before them have counted; then what was counted
        under names that no pool has now, by name.
    """
    seen = _current()
    with seen.lock:
        _put_away(seen)
        pools: dict[str, list[Any]] = {}
        for pool in renewal.pools():
            pools.setdefault(pool.name(), []).append(pool)
        gone = dict(seen.gone)
        found = []
        for name, same in pools.items():
            every = {id(pool.totals): pool.totals for pool in same}
            for key, totals in every.items():
                seen.totals.setdefault(key, (name, totals))
            before = gone.pop(name, None)
            found.append((same, _sum([*every.values(), *([before] if before else [])])))
    return found, gone


def _current() -> Seen:
    global _seen  # noqa: PLW0603 - the state of this process
    if _seen.generation != _native.generation():
        _seen = Seen()
    return _seen


def _put_away(seen: Seen) -> None:
    """Add up what pools have counted that are gone."""
    with seen.lock:
        # In this order: one that is made meanwhile is not taken for one that is gone.
        known = list(seen.totals)
        living = {id(pool.totals) for pool in renewal.pools()}
        for key in known:
            if key in living:
                continue
            taken = seen.totals.pop(key, None)
            if taken is not None:
                name, totals = taken
                if name not in seen.gone and len(seen.gone) >= GONE_MOST:
                    name = OTHER
                seen.gone.setdefault(name, Totals()).absorb(totals)


def _sum(every: list[Totals]) -> Totals:
    if len(every) == 1:
        return every[0]
    total = Totals()
    for one in every:
        total.absorb(one)
    return total
