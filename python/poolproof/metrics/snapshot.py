"""`snapshot`: the facts of one pool, or of a whole process, at one instant."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, overload

import sqlalchemy
from sqlalchemy.engine import Engine

from poolproof import _native
from poolproof._native import __version__
from poolproof.drivers import backend
from poolproof.faults.tallies import others
from poolproof.leases.held import held
from poolproof.metrics.automatic import is_main
from poolproof.metrics.facts import (
    Checkout,
    HostShares,
    Leases,
    OtherPool,
    PoolCounts,
    PoolSnapshot,
    ProcessSnapshot,
    Times,
)
from poolproof.metrics.scope import names
from poolproof.pool import family
from poolproof.pool.name import address_of
from poolproof.pool.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import Pool as AnyPool

    from poolproof._native import Distribution
    from poolproof.pool.entry import Entry
    from poolproof.pool.totals import Totals

__all__ = ["snapshot"]

# What holds a connection for less is no news.
HELD_IDLE_S = 1.0


@overload
def snapshot(source: None = None) -> ProcessSnapshot: ...
@overload
def snapshot(source: Engine | AsyncEngine | AnyPool) -> PoolSnapshot: ...
def snapshot(
    source: Engine | AsyncEngine | AnyPool | None = None,
) -> PoolSnapshot | ProcessSnapshot:
    """Say what a pool is doing and has done, in this process.

    It asks no server and waits for nobody.

    Args:
        source: An engine with a `poolproof.Pool`, or the pool; None for all pools of
            the process.

    Returns:
        The facts at one instant.

    Raises:
        TypeError: It is neither, or its pool is another.
    """
    if source is None:
        return _of_process()
    pool: Any = source
    engine = getattr(source, "sync_engine", source)
    if isinstance(engine, Engine):
        pool = engine.pool
    if not isinstance(pool, Pool):
        msg = (
            "snapshot needs an engine with a poolproof.Pool, or the pool, not "
            f"{type(pool).__name__}"
        )
        raise TypeError(msg)
    return _of_pools([pool], pool.totals)


def _of_process() -> ProcessSnapshot:
    left = held.left_s()
    living, gone = family.by_name()
    return ProcessSnapshot(
        process_id=os.getpid(),
        version=__version__,
        sqlalchemy=sqlalchemy.__version__,
        generation=_native.generation(),
        is_main=is_main(),
        severed_sockets=_native.severed(),
        leases=Leases(
            held=len(left),
            left_s=min(left, default=None),
            renewals=held.renewals,
            lost=held.lost,
        ),
        pools=tuple(_of_pools(pools, totals) for pools, totals in living),
        gone=tuple(PoolCounts(name, **_counted(one)) for name, one in gone.items()),
        others=tuple(
            OtherPool(
                name=name,
                faults=_by_cost(tallies.faults.copy()),
                transactions=tallies.transactions.copy(),
                retries=tallies.retries.copy(),
            )
            for name, tallies in others().items()
        ),
    )


def _of_pools(pools: list[Pool], totals: Totals) -> PoolSnapshot:
    """Say what pools of one name are doing, with what they have counted together."""
    pool = next((one for one in pools if not one.is_replaced), pools[0])
    every = [(one, one.stats()) for one in pools]
    stats = next(found for one, found in every if one is pool)
    # One that was replaced has what is out yet, and no place for more.
    current = [found for one, found in every if not one.is_replaced] or [stats]
    holders = _holders(pools)
    address = address_of(pool)
    unbounded = any(found.max_overflow < 0 for found in current)
    return PoolSnapshot(
        name=pool.name(),
        pool_class=type(pool).__name__,
        driver=str(getattr(pool._dialect, "driver", "unknown")),
        database=address.database,
        host=address.host,
        port=address.port,
        size=sum(found.size for found in current),
        max_overflow=-1 if unbounded else sum(found.max_overflow for found in current),
        min_idle=pool.settings.min_idle * len(current),
        idle=sum(found.idle for _, found in every),
        used=sum(found.in_use + found.maintenance for _, found in every),
        waiting=sum(found.waiting for _, found in every),
        newest_first=any(found.newest_first for found in current),
        oldest_wait_s=_longest(found.oldest_wait_s for _, found in every),
        oldest_hold_s=_longest(one.held_s for one in holders),
        held_idle=sum(
            one.is_busy is False and one.held_s > HELD_IDLE_S for one in holders
        ),
        host_budget=_host_budget(pool, pools),
        connect_failures=max(found.connect_failures for found in current),
        breaker_open=any(found.breaker_open for found in current),
        holders=holders,
        generation=stats.generation,
        **_counted(totals),
    )


def _counted(totals: Totals) -> dict[str, Any]:
    """Say what was counted, of pools that there are or that are gone."""
    timings = totals.timings
    wait, lag = timings.wait(), timings.lag()
    discarded = totals.discarded.copy()
    return {
        "checkouts": {False: wait.none, True: wait.count - wait.none},
        "timeouts": totals.timeouts.copy(),
        "connects": totals.connects.copy(),
        "discarded": discarded,
        "deadlines": _deadlines(discarded),
        "pings": totals.pings.copy(),
        "faults": _by_cost(totals.faults.copy()),
        "transactions": totals.transactions.copy(),
        "retries": totals.retries.copy(),
        "stranded": totals.stranded.copy(),
        "wait": _times(wait),
        "lag": None if lag is None else _times(lag),
        "connect": _times(timings.connect()),
        "ping": _times(timings.ping()),
        "hold": _times(timings.hold()),
        "hold_by_scope": _by_scope(totals),
    }


def _host_budget(pool: Pool, pools: list[Pool]) -> HostShares | None:
    budget = pool.budget
    if budget is None:
        return None
    parts = budget.parts()
    own = sum(len(one.shares) for one in pools)
    return HostShares(budget.name, budget.most, own, parts.held, parts.waiting)


def _longest(seconds: Iterable[float | None]) -> float | None:
    return max((one for one in seconds if one is not None), default=None)


def _times(found: Distribution, *, quantiles: bool = True) -> Times:
    p50, p95, p99 = (
        found.quantile(share) if quantiles else None for share in (0.5, 0.95, 0.99)
    )
    buckets = dict(zip(_native.EXPORTED_BOUNDS, found.exported(), strict=True))
    return Times(found.count, found.sum_s, p50, p95, p99, found.max_s, buckets)


def _by_scope(totals: Totals) -> dict[str, Times]:
    known = names()
    return {
        known.get(number, ""): _times(found, quantiles=False)
        for number, found in totals.timings.holds_by_scope()
    }


def _deadlines(discarded: dict[str, int]) -> dict[str, int]:
    """Pick out what the watchdog has ended: a reason is named after its step."""
    behind = "_timeout"
    return {
        reason.removesuffix(behind): count
        for reason, count in discarded.items()
        if reason.endswith(behind)
    }


def _by_cost(faults: dict[str, int]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for word, count in faults.items():
        fault, _, cost = word.partition(":")
        found.setdefault(fault, {})[cost] = count
    return found


def _holders(pools: list[Pool]) -> tuple[Checkout, ...]:
    known = names()
    found = []
    for pool in pools:
        held_by = pool.holders_by_slot()
        for entry in pool.entries():
            # Read once: its holder goes on meanwhile.
            connection = entry.dbapi_connection
            if entry.fairy_ref is None or connection is None:
                continue
            ticket = entry.ticket
            holder = held_by.get(ticket.slot)
            if holder is None:
                continue  # it came back
            found.append(
                Checkout(
                    thread=holder.thread,
                    scope=known.get(ticket.scope),
                    backend_pid=backend.pid_of(entry),
                    held_s=holder.held_s,
                    is_busy=_is_busy(entry, connection),
                )
            )
    return tuple(sorted(found, key=lambda one: one.held_s, reverse=True))


def _is_busy(entry: Entry, connection: Any) -> bool | None:
    driver = entry.driver
    return driver.is_busy(connection) if driver.tells else None
