"""What a checkout costs a task of asyncio, and how a thousand tasks are served."""

from __future__ import annotations

import asyncio
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from _rounds import Story, alternate, clock, pin
from _server import server
from _worker import Worker
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

import poolproof

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncEngine

METHOD = """
asyncpg and psycopg over TCP on the loopback address, an embedded PostgreSQL; each
engine in a process of its own, with a loop of asyncio's. A checkout is
`async with engine.connect()`, with nothing in it, in processor time of the process:
slices of some milliseconds alternate between the pools, and the median slice is the
round's. A crowd is tasks that come at once, each for one `select 1` on one of ten
connections; its time is by the clock, the ideal wait is the whole of it, and the
longest is that of the task that was served last or forgotten. A storm is the same crowd
of which a tenth is cancelled while it waits or asks.
"""
SIDES = "poolproof.AsyncPool", "AsyncAdaptedQueuePool"
DRIVERS = ("asyncpg", "psycopg")
CALLS = 100
SLICES = 20
TASKS = 1000
CONNECTIONS = 10
EVERY = 10
ONE = text("select 1")


def main() -> int:
    """Measure and report."""
    story = Story("tasks", METHOD, rounds=7)
    story.facts["pinned to core"] = pin()
    tasks = story.scaled(TASKS, least=CONNECTIONS * 2)
    pools = zip(SIDES, (poolproof.AsyncPool, AsyncAdaptedQueuePool), strict=True)
    with server() as url_of:
        workers = [
            Worker(
                partial(verbs, f"{driver} {side}", plain(url_of, driver), kind, tasks)
            )
            for side, kind in pools
            for driver in DRIVERS
        ]
        measured = {
            name: partial(worker.measure, name)
            for worker in workers
            for name in worker.names
        }
        taken: dict[str, list[float]] = {name: [] for name in measured}
        short = {name: run for name, run in measured.items() if "connect" in name}
        for _ in story.rounds():
            slices = story.scaled(SLICES, least=2)
            for name, value in alternate(short, slices).items():
                taken[name].append(value)
            for name in measured.keys() - short.keys():
                taken[name].append(measured[name]())
        for worker in workers:
            worker.close()
    for driver in DRIVERS:
        for thing, unit, bound in (
            ("connect", "µs", {"at_most": 1.0}),
            ("crowd", "tasks/s", {"at_least": 1.0}),
            ("longest", "× ideal", {"at_most": 1.0}),
        ):
            ours, theirs = (taken[f"{thing} {driver} {side}"] for side in SIDES)
            story.ratio(
                f"{thing}, {driver}", ours, theirs, sides=SIDES, unit=unit, **bound
            )
        storm, calm = (
            taken[f"{one} {driver} {SIDES[0]}"] for one in ("storm", "crowd")
        )
        story.ratio(
            f"storm ÷ crowd, {driver}",
            storm,
            calm,
            sides=("with cancellations", "without"),
            unit="tasks/s",
            at_least=0.8,
        )
    return story.report()


def plain(url_of: Callable[[str], URL], driver: str) -> URL:
    """Return a URL without what asyncpg would not take."""
    return url_of(driver).set(query={})


def verbs(
    label: str, url: URL, kind: Any, tasks: int
) -> dict[str, Callable[[], float]]:
    """Make an engine with its loop, and what measures it."""
    loop = asyncio.new_event_loop()
    engine = create_async_engine(
        url, poolclass=kind, pool_size=CONNECTIONS, max_overflow=0, pool_timeout=600
    )
    run = loop.run_until_complete
    run(crowd(engine, tasks, every=0))
    return {
        f"connect {label}": lambda: run(connect_and_close(engine)),
        f"crowd {label}": lambda: run(crowd(engine, tasks, every=0))[0],
        f"storm {label}": lambda: run(crowd(engine, tasks, every=EVERY))[0],
        f"longest {label}": lambda: run(crowd(engine, tasks, every=0))[1],
    }


async def connect_and_close(engine: AsyncEngine) -> float:
    """Time a checkout and its check-in, in µs of the processor."""
    begun = time.process_time()
    for _ in range(CALLS):
        async with engine.connect():
            pass
    return (time.process_time() - begun) / CALLS * 1e6


async def crowd(engine: AsyncEngine, count: int, *, every: int) -> tuple[float, float]:
    """Serve tasks that come at once, and cancel every so many-th.

    Returns:
        Tasks a second; and the longest wait, beside the whole time.
    """
    waits = []

    async def one() -> None:
        came = clock()
        async with engine.connect() as connection:
            waits.append(clock() - came)
            await connection.execute(ONE)

    begun = clock()
    tasks = [asyncio.create_task(one()) for _ in range(count)]
    if every:
        for number, task in enumerate(tasks):
            if number % every == 0:
                await asyncio.sleep(0)
                task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    whole = clock() - begun
    return count / whole, max(waits) / whole


if __name__ == "__main__":
    sys.exit(main())
