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
        """The most served thread beside the least served one."""
        least = min(self.served)
        return max(self.served) / least if least else math.inf

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
    held = run(story, 4, HOLD_S)
    ours, theirs = (held[side] for side in SIDES)
    title = f"{THREADS} threads on 4 slots, 1 ms hold"
    story.add(
        Number(
            f"{title}: longest wait ÷ ideal",
            "×",
            [one.longest_to_ideal(4) for one in ours],
            at_most=2,
            sides={"QueuePool (×)": median(one.longest_to_ideal(4) for one in theirs)},
        )
    )
    story.add(
        Number(
            f"{title}: most to least served",
            "×",
            [one.most_to_least for one in ours],
            at_most=1.05,
            sides={"QueuePool (×)": median(one.most_to_least for one in theirs)},
        )
    )
    throughput(story, title, held, at_least=0.95)
    for share, name in ((0.5, "p50"), (0.99, "p99"), (1.0, "longest")):
        story.add(
            Number(
                f"{title}: wait, {name}",
                "ms",
                [one.wait_ms(share) for one in ours],
                sides={"QueuePool (ms)": median(one.wait_ms(share) for one in theirs)},
            )
        )
    holds = {
        f"{side} (ms)": median(statistics.mean(one.holds) * 1e3 for one in held[side])
        for side in SIDES
    }
    story.add(
        Number(
            f"{title}: hold as measured",
            "ms",
            [statistics.mean(one.holds) * 1e3 for one in ours],
            sides=holds,
        )
    )
    for slots in (16, 32):
        title = f"{THREADS} threads on {slots} slots, no hold"
        busy = run(story, slots, 0)
        throughput(story, title, busy)
        story.add(
            Number(
                f"{title}: most to least served",
                "×",
                [one.most_to_least for one in busy[SIDES[0]]],
                sides={
                    "QueuePool (×)": median(one.most_to_least for one in busy[SIDES[1]])
                },
            )
        )
    return story.report()


def run(story: Story, slots: int, hold_s: float) -> dict[str, list[Outcome]]:
    """Run both pools in every round."""
    driver = SocketDriver()
    engines = {
        side: make_engine(driver, pool_class, slots, pool_timeout=60)
        for side, pool_class in zip(SIDES, (poolproof.Pool, QueuePool), strict=True)
    }
    outcomes: dict[str, list[Outcome]] = {side: [] for side in SIDES}
    for number in story.rounds(f"{THREADS}/{slots}"):
        for side in SIDES if number % 2 else reversed(SIDES):
            seconds = SECONDS * max(story.scale, 0.05)
            outcome = contend(engines[side].pool, seconds, hold_s)
            outcomes[side].append(outcome)
    for engine in engines.values():
        engine.dispose()
    return outcomes


def throughput(
    story: Story,
    title: str,
    outcomes: dict[str, list[Outcome]],
    at_least: float | None = None,
) -> None:
    """Add the throughput of both pools, as a ratio."""
    story.ratio(
        f"{title}: throughput",
        *([one.rate for one in outcomes[side]] for side in SIDES),
        sides=SIDES,
        unit="checkouts/s",
        at_least=at_least,
    )


def median(values: object) -> float:
    """Return the median of what is iterated over."""
    return statistics.median(values)  # type: ignore[call-overload, no-any-return]


if __name__ == "__main__":
    sys.exit(main())
