"""Pools of one name, and what those have counted that are gone.

An engine that is disposed of has another pool, which goes on with the counts of the one
before; an engine that is dropped takes them away. A number that was shown once must not
fall, so the counts of pools that are gone are added up under their name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolproof import _native
from poolproof.fork import renewal
from poolproof.pool.totals import Totals

if TYPE_CHECKING:
    from poolproof.pool.pool import Pool

__all__ = ["GONE_MOST", "by_name"]

GONE_MOST = 200
"""Names of which the counts are kept after the last pool of that name has gone."""


class _Seen:
    """What was looked at in this process. A child begins with nothing.

    Attributes:
        generation: Of the process.
        totals: Those of pools that there were at the last look, with their names.
        gone: What pools have counted that are gone, by name.
    """

    def __init__(self) -> None:
        self.generation = _native.generation()
        self.totals: dict[int, tuple[str, Totals]] = {}
        self.gone: dict[str, Totals] = {}


_seen = _Seen()


def by_name() -> list[tuple[list[Pool], Totals]]:
    """Return the pools of this process, those of one name together.

    Returns:
        Pools, and what they and those before them have counted.
    """
    global _seen  # noqa: PLW0603 - the state of this process
    if _seen.generation != _native.generation():
        _seen = _Seen()
    seen = _seen
    pools: dict[str, list[Pool]] = {}
    for pool in renewal.pools():
        pools.setdefault(pool.name(), []).append(pool)
    _put_away(seen, {id(pool.totals) for same in pools.values() for pool in same})
    found = []
    for name, same in pools.items():
        every = {id(pool.totals): pool.totals for pool in same}
        for key, totals in every.items():
            seen.totals.setdefault(key, (name, totals))
        gone = seen.gone.get(name)
        found.append((same, _sum([*every.values(), *([gone] if gone else [])])))
    return found


def _put_away(seen: _Seen, living: set[int]) -> None:
    """Add up what pools have counted that are gone."""
    for key in list(seen.totals):
        if key not in living:
            # Of two threads that look at once one gets it.
            taken = seen.totals.pop(key, None)
            if taken is not None:
                name, totals = taken
                # Those of an engine for each tenant would be without end.
                while name not in seen.gone and len(seen.gone) >= GONE_MOST:
                    seen.gone.pop(next(iter(seen.gone)), None)
                seen.gone.setdefault(name, Totals()).absorb(totals)


def _sum(every: list[Totals]) -> Totals:
    if len(every) == 1:
        return every[0]
    total = Totals()
    for one in every:
        total.absorb(one)
    return total
