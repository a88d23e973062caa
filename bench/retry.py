"""What `run_transaction` adds to a transaction that goes well."""

from __future__ import annotations

import statistics
import sys
from functools import partial
from typing import TYPE_CHECKING

from _rounds import Number, Story, alternate, clock, pin
from _stub import SocketDriver, make_engine
from _worker import Worker

import poolproof

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

METHOD = """
An engine over a driver that does nothing, on a socket pair, with poolproof.Pool: the
same empty unit of work under `with engine.begin()` and under `run_transaction`, in one
process pinned to one core. Slices of 40 calls, after 10 that warm up, alternate; the
median slice is the round's time.
"""
CALLS = 40
WARMING_CALLS = 10
SLICES = 120


def main() -> int:
    """Measure and report."""
    story = Story("retry", METHOD, rounds=15)
    story.facts["pinned to core"] = pin()
    worker = Worker(sides)
    variants = {name: partial(worker.measure, name) for name in worker.names}
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for _ in story.rounds():
        for name, value in alternate(variants, story.scaled(SLICES, least=2)).items():
            taken[name].append(value)
    worker.close()
    ours, plain = taken["run_transaction"], taken["begin"]
    story.add(
        Number(
            "run_transaction beyond engine.begin()",
            "µs",
            [a - b for a, b in zip(ours, plain, strict=True)],
            at_most=3.0,
            sides={
                "run_transaction (µs)": statistics.median(ours),
                "engine.begin() (µs)": statistics.median(plain),
            },
        )
    )
    return story.report()


def work(_: Connection) -> None:
    """Do nothing."""


def sides() -> dict[str, Callable[[], float]]:
    """Make what is timed: each call returns µs for one transaction."""
    engine = make_engine(SocketDriver(), poolproof.Pool, 5)

    def begin() -> None:
        with engine.begin() as connection:
            work(connection)

    def run() -> None:
        poolproof.run_transaction(engine, work)

    return {"begin": timed(begin), "run_transaction": timed(run)}


def timed(function: Callable[[], None]) -> Callable[[], float]:
    """Time a slice of calls."""

    def slice_of_calls() -> float:
        for _ in range(WARMING_CALLS):
            function()
        start = clock()
        for _ in range(CALLS):
            function()
        return (clock() - start) / CALLS * 1e6

    return slice_of_calls


if __name__ == "__main__":
    sys.exit(main())
