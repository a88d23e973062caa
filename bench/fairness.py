"""Who waits how long, when there are more threads than connections."""

from __future__ import annotations

import math
import statistics
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from _rounds import Number, Story, clock
from _stub import SocketDriver, make_engine
from sqlalchemy.pool import QueuePool

import poolproof

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.pool import Pool

METHOD = """
Threads check a connection of a driver that does nothing (a socket pair) out, hold it,
and check it in, over and over; both pools run within each round, in alternating order,
on connections that are open already. The hold is `time.sleep(0.001)`, which lasts
longer than that; it is measured from the checkout to the end of the check-in, and the
ideal wait is threads ÷ slots × its mean in the same run. A wait that is under way when
the time is over counts as long as it lasts; only what was served in time counts as
served.
"""
THREADS = 32
SECONDS = 1.2
SHORTEST = 0.05  # of that, in a trial
HOLD_S = 0.001
SIDES = ("poolproof.Pool", "QueuePool")


@dataclass
class Outcome:
    """What one run showed.

    Attributes:
        seconds: How long it ran.
        served: For each thread, how often it was served.
        waits: Every wait for a connection, in seconds.
        holds: Every hold, in seconds.
    """

    seconds: float
    served: list[int] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    holds: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Checkouts a second."""
        return sum(self.served) / self.seconds

    @property
    def most_to_least(self) -> float:
        """The most served thread beside the least; never served counts as once."""
        return max(self.served) / max(1, min(self.served))

    def wait_ms(self, share: float) -> float:
        """Return the wait in ms that `share` of all waits did not exceed."""
        ordered = sorted(self.waits)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3

    def longest_to_ideal(self, slots: int) -> float:
        """Return the longest wait as a multiple of the ideal one."""
        ideal = len(self.served) / slots * statistics.mean(self.holds)
        return max(self.waits) / ideal


def contend(pool: Pool, seconds: float, hold_s: float) -> Outcome:
    """Let `THREADS` threads use a pool for a while.

    Args:
        pool: The pool, its connections open and idle.
        seconds: How long no new checkout is begun after.
        hold_s: How long each connection is held, in seconds; 0 does not sleep.
    """
    outcome = Outcome(seconds)
    deadline = math.inf

    def start() -> None:
        nonlocal deadline
        deadline = clock() + seconds

    barrier = threading.Barrier(THREADS, action=start)

    def use() -> None:
        waits: list[float] = []
        holds: list[float] = []
        served = 0
        barrier.wait()
        while (asked := clock()) < deadline:
            connection = pool.connect()
            got = clock()
            if hold_s:
                time.sleep(hold_s)
            connection.close()
            back = clock()
            waits.append(got - asked)
            holds.append(back - got)
            served += back <= deadline
        outcome.waits += waits
        outcome.holds += holds
        outcome.served.append(served)

    threads = [threading.Thread(target=use) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcome


def main() -> int:
    """Measure and report."""
    story = Story("fairness", METHOD, rounds=11)
    title = f"{THREADS} threads on 4 slots, 1 ms hold"
    held = run(story, 4, HOLD_S)
    report = Report(story, title, held)
    report.side_by_side(
        "longest wait ÷ ideal", "×", lambda one: one.longest_to_ideal(4), at_most=2
    )
    report.side_by_side(
        "most to least served", "×", lambda one: one.most_to_least, at_most=1.05
    )
    report.throughput(at_least=0.95)
    report.side_by_side("wait, p50", "ms", lambda one: one.wait_ms(0.5))
    report.side_by_side("wait, p99", "ms", lambda one: one.wait_ms(0.99))
    report.side_by_side("wait, longest", "ms", lambda one: one.wait_ms(1))
    report.side_by_side(
        "hold as measured", "ms", lambda one: statistics.mean(one.holds) * 1e3
    )
    for slots in (16, 32):
        title = f"{THREADS} threads on {slots} slots, no hold"
        report = Report(story, title, run(story, slots, 0))
        report.throughput()
        report.side_by_side("most to least served", "×", lambda one: one.most_to_least)
        report.side_by_side("wait, p99", "ms", lambda one: one.wait_ms(0.99))
    return story.report()


def run(story: Story, slots: int, hold_s: float) -> dict[str, list[Outcome]]:
    """Run both pools in every round."""
    driver = SocketDriver()
    engines = {
        side: make_engine(driver, pool_class, slots, pool_timeout=60)
        for side, pool_class in zip(SIDES, (poolproof.Pool, QueuePool), strict=True)
    }
    seconds = SECONDS * max(story.scale, SHORTEST)
    outcomes: dict[str, list[Outcome]] = {side: [] for side in SIDES}
    for number in story.rounds(f"{THREADS}/{slots}"):
        for side in SIDES if number % 2 else reversed(SIDES):
            outcomes[side].append(contend(engines[side].pool, seconds, hold_s))
    for engine in engines.values():
        engine.dispose()
    return outcomes


class Report:
    """Adds what one kind of run showed to the story's numbers."""

    def __init__(
        self, story: Story, title: str, outcomes: dict[str, list[Outcome]]
    ) -> None:
        self._story = story
        self._title = title
        self._outcomes = outcomes

    def side_by_side(
        self,
        name: str,
        unit: str,
        measure: Callable[[Outcome], float],
        at_most: float | None = None,
    ) -> None:
        """Add a measure of poolproof.Pool's runs, QueuePool's median beside it."""
        ours, theirs = (
            [measure(one) for one in self._outcomes[side]] for side in SIDES
        )
        beside = {f"{SIDES[1]} ({unit})": statistics.median(theirs)}
        name = f"{self._title}: {name}"
        self._story.add(Number(name, unit, ours, at_most=at_most, sides=beside))

    def throughput(self, at_least: float | None = None) -> None:
        """Add the throughput of both pools, as a ratio."""
        self._story.ratio(
            f"{self._title}: throughput",
            *([one.rate for one in self._outcomes[side]] for side in SIDES),
            sides=SIDES,
            unit="checkouts/s",
            at_least=at_least,
        )


if __name__ == "__main__":
    sys.exit(main())
