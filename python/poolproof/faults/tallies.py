"""Where the faults and units of work of a pool are counted, of whatever class it is.

A `poolproof.Pool` has its own counts. Those of other pools, which `poolproof.guard`
watches, stand here, under the pool's name; what belongs to no pool under none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from poolproof import _native
from poolproof._counts import Tallies

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine
    from sqlalchemy.pool import Pool

__all__ = ["begin", "count_unit", "name_of", "others", "tallies_of"]

# So many names of guarded pools are counted from their beginning.
_BEGUN_MOST = 200


class _Others:
    """The counts of this process. A child begins with none."""

    def __init__(self) -> None:
        self.generation = _native.generation()
        self.tallies: dict[str, Tallies] = {}


_of_process = _Others()
# A child's pools are those of its parent, and begin as they did.
_begun: dict[str, None] = {}


def begin(pool: Pool) -> None:
    """Count a pool's from now on, though nothing has happened to it yet.

    Args:
        pool: Any pool that is guarded.
    """
    if isinstance(getattr(pool, "totals", None), Tallies):
        return
    if len(_begun) < _BEGUN_MOST:
        _begun[name_of(pool)] = None


def tallies_of(pool: Pool | None) -> Tallies:
    """Return where to count what happens to a pool.

    Args:
        pool: Any pool; None where it is not known.
    """
    own = getattr(pool, "totals", None)
    if isinstance(own, Tallies):
        return own
    known = _current().tallies
    return known.setdefault(name_of(pool), Tallies())


class Tried(Protocol):
    """An attempt at a unit of work.

    Attributes:
        engine: Where it was made, as far as that is known.
    """

    engine: Engine | None


def count_unit(last: Tried | None, outcome: str | None, attempts: int) -> None:
    """Count what a unit of work has come to.

    Args:
        last: Its last attempt; None where it has not come to one.
        outcome: ``"done"``, ``"not_done"``, ``"unknown"``; None where it was
            interrupted, and has come to nothing.
        attempts: How many it has taken.
    """
    if outcome is None:
        return
    engine = None if last is None else last.engine
    tallies = tallies_of(None if engine is None else engine.pool)
    tallies.transactions.add(outcome)
    if attempts > 1:
        tallies.retries.add(outcome)


def others() -> dict[str, Tallies]:
    """Return the counts of pools that have none of their own, by name."""
    known = _current().tallies
    for name in list(_begun):
        known.setdefault(name, Tallies())
    return dict(known)


def name_of(pool: Any) -> str:
    """Name a pool: as its messages do, or by its class. Nothing for None.

    Args:
        pool: Any pool.
    """
    if pool is None:
        return ""
    if isinstance(getattr(pool, "totals", None), Tallies):
        return str(pool.name())
    return str(getattr(pool, "logging_name", None) or type(pool).__name__)


def _current() -> _Others:
    global _of_process  # noqa: PLW0603 - the state of this process
    if _of_process.generation != _native.generation():
        _of_process = _Others()
    return _of_process
