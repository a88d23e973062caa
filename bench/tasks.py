"""What a checkout costs a task of asyncio, and how a thousand tasks are served."""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from _rounds import Number, Story, alternate, clock, pin
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
round's. A crowd are tasks of which each asks `select 1` on one of ten connections and
comes again at once, by the clock; the pools' turns alternate. The hold is measured from
the checkout to the end of the check-in, and the ideal wait is tasks ÷ connections × its
mean in the same run; a wait that is under way when the time is over counts as long as
it lasts. In a storm a thousand of them a second, whoever they are, are cancelled while
they wait or ask, and others come in their place; served is who was not cancelled.
"""
SIDES = "poolproof.AsyncPool", "AsyncAdaptedQueuePool"
POOLS = dict(zip(SIDES, (poolproof.AsyncPool, AsyncAdaptedQueuePool), strict=True))
DRIVERS = ("asyncpg", "psycopg")
CALLS = 100
SLICES = 20
TASKS = 1000
CONNECTIONS = 10
SECONDS = 1.5
SHORTEST = 0.05  # of that, in a trial
CANCELLED_A_SECOND = 1000
ONE = text("select 1")


def main() -> int:
    """Measure and report."""
    story = Story("tasks", METHOD, rounds=7)
    story.facts["pinned to core"] = pin()
    with server() as url_of:
        workers = [
            Worker(partial(verbs, f"{driver} {side}", plain(url_of, driver), story))
            for driver in DRIVERS
            for side in SIDES
        ]
        measured = {
            name: partial(worker.measure, name)
            for worker in workers
            for name in worker.names
        }
        taken: dict[str, list[float]] = {name: [] for name in measured}
        short = {name: run for name, run in measured.items() if "connect" in name}
        for number in story.rounds():
            slices = story.scaled(SLICES, least=2)
            for name, value in alternate(short, slices).items():
                taken[name].append(value)
            for verb in ("crowd", "longest", "storm"):
                for driver in DRIVERS:
                    for side in SIDES if number % 2 else reversed(SIDES):
                        name = f"{verb} {driver} {side}"
                        taken[name].append(measured[name]())
        for worker in workers:
            worker.close()
    for driver in DRIVERS:
        report(story, driver, taken)
    return story.report()


def report(story: Story, driver: str, taken: dict[str, list[float]]) -> None:
    """Add the numbers of one driver."""

    def both(verb: str) -> list[list[float]]:
        return [taken[f"{verb} {driver} {side}"] for side in SIDES]

    story.ratio(f"connect, {driver}", *both("connect"), sides=SIDES, at_most=1.0)
    story.ratio(
        f"crowd, {driver}", *both("crowd"), sides=SIDES, unit="tasks/s", at_least=1.0
    )
    ours, theirs = both("longest")
    beside = {f"{SIDES[1]} (× ideal)": statistics.median(theirs)}
    story.add(
        Number(f"longest wait ÷ ideal, {driver}", "×", ours, at_most=1.3, sides=beside)
    )
    for side, storm, calm, bound in zip(
        SIDES, both("storm"), both("crowd"), (0.8, None), strict=True
    ):
        story.ratio(
            f"storm ÷ crowd, {driver}, {side}",
            storm,
            calm,
            sides=("with cancellations", "without"),
            unit="tasks/s",
            at_least=bound,
        )


def plain(url_of: Callable[[str], URL], driver: str) -> URL:
    """Return a URL without what asyncpg would not take."""
    return url_of(driver).set(query={})


def verbs(label: str, url: URL, story: Story) -> dict[str, Callable[[], float]]:
    """Make an engine with its loop, and what measures it."""
    loop = asyncio.new_event_loop()
    engine = create_async_engine(
        url,
        poolclass=POOLS[label.partition(" ")[2]],
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=600,
    )
    count = story.scaled(TASKS, least=CONNECTIONS * 2)
    seconds = SECONDS * max(story.scale, SHORTEST)
    calm = Crowd(engine, count)
    loop.run_until_complete(calm.gather(seconds / 3))

    def gather(cancelled_a_second: int) -> float:
        return loop.run_until_complete(calm.gather(seconds, cancelled_a_second))

    return {
        f"connect {label}": lambda: loop.run_until_complete(connect_and_close(engine)),
        f"crowd {label}": lambda: gather(0),
        f"longest {label}": lambda: calm.longest_to_ideal,  # of the crowd before
        f"storm {label}": lambda: gather(CANCELLED_A_SECOND),
    }


async def connect_and_close(engine: AsyncEngine) -> float:
    """Time a checkout and its check-in, in µs of the processor."""
    begun = time.process_time()
    for _ in range(CALLS):
        async with engine.connect():
            pass
    return (time.process_time() - begun) / CALLS * 1e6


class Crowd:
    """Tasks of which each comes again as soon as it was served.

    Args:
        engine: What they ask.
        count: How many there are.

    Attributes:
        longest_to_ideal: The longest wait of the last crowd, beside the ideal one.
    """

    def __init__(self, engine: AsyncEngine, count: int) -> None:
        self.longest_to_ideal = 0.0
        self._engine = engine
        self._count = count
        self._until = 0.0
        self._waits: list[float] = []
        self._holds: list[float] = []
        self._served = 0

    async def gather(self, seconds: float, cancelled_a_second: int = 0) -> float:
        """Let them come for a while.

        Args:
            seconds: How long nobody comes anew after.
            cancelled_a_second: How many are cancelled, and replaced.

        Returns:
            Tasks that were served, a second.
        """
        self._waits, self._holds, self._served = [], [], 0
        began = clock()
        self._until = began + seconds
        tasks = [self._send() for _ in range(self._count)]
        if cancelled_a_second:
            await self._cancel(tasks, began, cancelled_a_second)
        await asyncio.gather(*tasks)
        ideal = self._count / CONNECTIONS * statistics.mean(self._holds)
        self.longest_to_ideal = max(self._waits) / ideal
        return self._served / seconds

    def _send(self) -> asyncio.Task[None]:
        return asyncio.create_task(self._come())

    async def _come(self) -> None:
        while (asked := clock()) < self._until:
            async with self._engine.connect() as connection:
                got = clock()
                await connection.execute(ONE)
            back = clock()
            self._waits.append(got - asked)
            self._holds.append(back - got)
            self._served += back <= self._until

    async def _cancel(
        self, tasks: list[asyncio.Task[None]], began: float, a_second: int
    ) -> None:
        """Cancel so many as the clock asks for, and send others in their place."""
        choose = random.Random(1)  # noqa: S311 - no secret
        done = 0
        while (now := clock()) < self._until:
            while done < (now - began) * a_second:
                number = choose.randrange(len(tasks))
                tasks[number].cancel()
                tasks[number] = self._send()
                done += 1
            await asyncio.sleep(0.001)


if __name__ == "__main__":
    sys.exit(main())
