"""What a checkout and a check-in cost, beside QueuePool's."""

from __future__ import annotations

import statistics
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from _rounds import Number, Story, alternate, clock, pin
from _stub import BareDriver, SocketDriver, make_engine
from _worker import Worker
from sqlalchemy.pool import QueuePool

import poolproof
from poolproof import _native

if TYPE_CHECKING:
    from collections.abc import Callable

METHOD = """
Engines over a driver that does nothing, five idle connections each, one thread,
rollback on return as by default; each engine in a process of its own, as in an
application, all pinned to one core. poolproof.Pool has every protection on (fork
protection, guard); QueuePool is as SQLAlchemy makes it. Slices of 40 calls, after 10
that warm up, alternate between the pools; the median slice is the round's time.
Without a descriptor there is nothing to protect, so that row proves nothing. The Rust
get and put alone is `Gate.acquire` and `Ticket.release` as Python calls them, nothing
subtracted; beside it two calls into the extension that read one number each.
"""
SIZE = 5
CALLS = 40
WARMING_CALLS = 10
GATE_CALLS = 1000
SLICES = 120
SIDES = ("poolproof.Pool", "QueuePool")


def main() -> int:
    """Measure and report."""
    story = Story("checkout", METHOD, rounds=15)
    story.facts["pinned to core"] = pin()
    workers = [
        Worker(partial(pool_verbs, f"{kind} {side}", driver, pool_class))
        for kind, driver in (("socket", SocketDriver()), ("bare", BareDriver()))
        for side, pool_class in zip(SIDES, (poolproof.Pool, QueuePool), strict=True)
    ]
    workers.append(Worker(gate_verbs))
    variants = {
        name: partial(worker.measure, name)
        for worker in workers
        for name in worker.names
    }
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for _ in story.rounds():
        for name, value in alternate(variants, story.scaled(SLICES, least=2)).items():
            taken[name].append(value)
    for worker in workers:
        worker.close()

    for kind, descriptor in (("socket", "a socket pair"), ("bare", "no descriptor")):
        for thing in ("pool", "engine"):
            story.ratio(
                f"{thing}.connect().close(), {descriptor}",
                *(taken[f"{thing} {kind} {side}"] for side in SIDES),
                sides=SIDES,
                at_most=0.95 if kind == "socket" else None,
            )
    empty = {"two empty calls (µs)": statistics.median(taken["empty"])}
    story.add(
        Number("Rust get and put alone", "µs", taken["gate"], at_most=0.2, sides=empty)
    )
    return story.report()


def pool_verbs(
    label: str, driver: BareDriver, pool_class: Any
) -> dict[str, Callable[[], float]]:
    """Make an engine, and what measures it and its pool."""
    engine = make_engine(driver, pool_class, SIZE)
    return {
        f"pool {label}": connect_and_close(engine.pool),
        f"engine {label}": connect_and_close(engine),
    }


def gate_verbs() -> dict[str, Callable[[], float]]:
    """Make what measures the extension alone."""
    return {"gate": acquire_and_release(), "empty": empty_calls()}


def connect_and_close(source: Any) -> Callable[[], float]:
    """Time `connect().close()` of an engine or a pool, in µs."""
    connect = source.connect
    calls = range(CALLS)

    def run() -> float:
        for _ in range(WARMING_CALLS):
            connect().close()
        begun = clock()
        for _ in calls:
            connect().close()
        return (clock() - begun) / CALLS * 1e6

    return run


def acquire_and_release() -> Callable[[], float]:
    """Time the gate's two verbs, in µs a pair."""
    acquire = _native.Gate(kept=SIZE, total=SIZE, lifo=False).acquire
    idle: dict[int, object] = {}
    entry = object()
    calls = range(GATE_CALLS)

    def run() -> float:
        begun = clock()
        for _ in calls:
            acquire().release(idle, entry)  # type: ignore[union-attr]
        return (clock() - begun) / GATE_CALLS * 1e6

    return run


def empty_calls() -> Callable[[], float]:
    """Time two calls into the extension that do nothing, in µs a pair."""
    empty = _native.generation
    calls = range(GATE_CALLS)

    def run() -> float:
        begun = clock()
        for _ in calls:
            empty()
            empty()
        return (clock() - begun) / GATE_CALLS * 1e6

    return run


if __name__ == "__main__":
    sys.exit(main())
