"""What a task pays that ends with `engine.dispose()`, beside QueuePool."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

from _rounds import Story, alternate, clock, pin
from _server import server
from _worker import Worker
from sqlalchemy import create_engine
from sqlalchemy.pool import QueuePool

import poolproof

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine
    from sqlalchemy.engine import URL
    from sqlalchemy.pool import Pool

METHOD = """
psycopg2 over TCP on the loopback address, an embedded PostgreSQL on the other core; one
thread, each engine in a process of its own, poolproof.Pool as it comes. A task connects
anew, runs "select 1" once or three times, each in a transaction and a checkout of its
own, and calls engine.dispose(), as services do that want no connection to outlive a
task. "dispose() alone" is that of an engine whose pool is empty: what the pool itself
costs, which is made anew each time. Slices of some milliseconds alternate between the
pools; the median slice is the round's time.
"""
SLICES = 20
TASKS = 4
DISPOSALS = 50
QUERIES = {"a task of one query": 1, "a task of three queries": 3}
ALONE = "dispose() alone"
OURS, THEIRS = "poolproof.Pool", "QueuePool"


def main() -> int:
    """Measure and report."""
    story = Story("dispose", METHOD, rounds=7)
    story.facts["pinned to core"] = pin()
    with server() as url_of:
        url = url_of("psycopg2")
        workers = [
            Worker(partial(tasks, name, url, pool))
            for name, pool in ((OURS, poolproof.Pool), (THEIRS, QueuePool))
        ]
        variants = {
            name: partial(worker.measure, name)
            for worker in workers
            for name in worker.names
        }
        taken: dict[str, list[float]] = {name: [] for name in variants}
        for _ in story.rounds():
            slices = story.scaled(SLICES, least=2)
            for name, value in alternate(variants, slices).items():
                taken[name].append(value)
        for worker in workers:
            worker.close()

    for title in (*QUERIES, ALONE):
        story.ratio(
            f"{title} ÷ QueuePool's",
            taken[f"{title} on {OURS}"],
            taken[f"{title} on {THEIRS}"],
            sides=(OURS, THEIRS),
        )
    return story.report()


def tasks(label: str, url: URL, pool: type[Pool]) -> dict[str, Callable[[], float]]:
    """Make an engine, and what measures it."""
    engine = create_engine(url, poolclass=pool)
    measures = {
        f"{title} on {label}": timed(partial(task, engine, queries), TASKS)
        for title, queries in QUERIES.items()
    }
    measures[f"{ALONE} on {label}"] = timed(engine.dispose, DISPOSALS)
    return measures


def task(engine: Engine, queries: int) -> None:
    """Connect, ask so many times, leave nothing."""
    for _ in range(queries):
        with engine.connect() as connection:
            connection.exec_driver_sql("select 1").scalar_one()
    engine.dispose()


def timed(call: Callable[[], None], calls: int) -> Callable[[], float]:
    """Time so many calls, in µs a call, after one that warms up."""

    def run() -> float:
        call()
        begun = clock()
        for _ in range(calls):
            call()
        return (clock() - begun) / calls * 1e6

    return run


if __name__ == "__main__":
    sys.exit(main())
