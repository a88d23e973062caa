"""Whom to serve when too many come: queue disciplines, simulated.

    python bench/_disciplines.py

What `docs/decisions/0013` rests on, beside `overload.py`, which measures the pool: five
slots of 50 ms each, callers with a patience, a pool with a timeout. No pool is in it.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field
from typing import Any

SLOTS, HOLD_S = 5, 0.05
SHARE = 8
GROWN, STANDING_S = 3, 0.5
NEVER = float("inf")


@dataclass(frozen=True)
class Case:
    """Who comes.

    Attributes:
        name: In words.
        load: Open arrivals, as a multiple of what can be served; 0 for a crowd.
        crowd: Callers of whom each asks again at once.
        over_s: How long it takes until all of the crowd are there.
        patience_s: When a caller has no use for an answer any more.
        timeout_s: When the pool refuses a caller that waits.
        hurried_s: Others come beside the crowd who have only so long; 0 for none.
        hurried_each_s: How often.
        seconds: How long it goes on.
    """

    name: str
    load: float = 0.0
    crowd: int = 0
    over_s: float = 0.05
    patience_s: float = 0.4
    timeout_s: float = 0.4
    hurried_s: float = 0.0
    hurried_each_s: float = 0.3
    seconds: float = 60.0


CASES = (
    Case("open, 1.2 × the load", load=1.2),
    Case("open, 10 × the load", load=10),
    Case("crowd of 60", crowd=60),
    Case("crowd of 60, patient", crowd=60, patience_s=10, timeout_s=30),
    Case(
        "the same, and three callers a second who have 0.2 s",
        crowd=60,
        patience_s=10,
        timeout_s=30,
        hurried_s=0.2,
        seconds=120,
    ),
    Case(
        "the same, and 1.5 × the load of callers who have 0.2 s",
        crowd=60,
        patience_s=10,
        timeout_s=30,
        hurried_s=0.2,
        hurried_each_s=HOLD_S / SLOTS / 1.5,
        seconds=120,
    ),
    Case("open, 1.2 ×, patience not told", load=1.2, patience_s=1, timeout_s=30),
    Case("crowd of 60, patience not told", crowd=60, timeout_s=30),
    Case(
        "crowd that grows to 300 in 20 s",
        crowd=300,
        over_s=20,
        patience_s=10,
        timeout_s=30,
    ),
    Case(
        "crowd that grows to 1,500 in 30 s",
        crowd=1500,
        over_s=30,
        patience_s=20,
        timeout_s=30,
        seconds=120,
    ),
)
# In order; newest first once time has run out, until the queue is empty; also left when
# nobody's has for twice as long; a share for those with time left; most time left; the
# same as `share`, entered as well when the queue has grown for three seconds on end.
DISCIPLINES = ("order", "newest", "calm", "share", "most_left", "growth")


@dataclass
class Play:
    """One simulation: `run` tells what became of the callers."""

    case: Case
    discipline: str
    free: int = SLOTS
    in_time: int = 0
    late: int = 0
    refused: int = 0
    turn: int = 0
    until: float = 0.0
    least: int = 0
    window: tuple[float, int, int] = (0.0, 0, 0)
    queue: dict[tuple[str, int], tuple[float, float, float]] = field(
        default_factory=dict
    )
    events: list[tuple[float, int, str, Any]] = field(default_factory=list)
    random: random.Random = field(
        default_factory=lambda: random.Random(3)  # noqa: S311 - the same each time
    )
    number: int = 0

    def at(self, when: float, kind: str, what: Any = None) -> None:
        """Have something happen."""
        self.number += 1
        heapq.heappush(self.events, (when, self.number, kind, what))

    def run(self) -> str:
        """Play, and say what became of the callers."""
        case = self.case
        if case.load:
            self.at(0.0, "open")
        for _ in range(case.crowd):
            self.at(self.random.random() * case.over_s, "crowd")
        if case.hurried_s:
            self.at(case.hurried_each_s, "hurried")
        while self.events and self.events[0][0] <= case.seconds:
            now, _, kind, what = heapq.heappop(self.events)
            if kind == "over":
                self._time_is_over(now, what)
            elif kind == "back":
                self._comes_back(now, what)
            else:
                self._comes(now, kind)
        capacity = SLOTS / HOLD_S * case.seconds
        return (
            f"{100 * self.in_time / capacity:5.1f} % in time, "
            f"{self.late} late, {self.refused} refused"
        )

    def _comes(self, now: float, kind: str) -> None:
        case = self.case
        patience, limit = case.patience_s, case.timeout_s
        if kind == "open":
            gap = self.random.expovariate(case.load * SLOTS / HOLD_S)
            self.at(now + gap, "open")
        elif kind == "hurried":
            patience = limit = case.hurried_s
            self.at(now + case.hurried_each_s, "hurried")
        caller = (kind, self.number)
        if self.free and not self.queue:
            self._serve(now, caller, now + patience)
        else:
            self.queue[caller] = (now, limit, now + patience)
            self.at(now + limit, "over", caller)
        self._look_for_growth(now)

    def _time_is_over(self, now: float, caller: Any) -> None:
        waited = self.queue.pop(caller, None)
        if waited is None:
            return
        kind, _ = caller
        self.refused += kind != "hurried"
        calm = NEVER if self.discipline in {"newest", "most_left"} else 2 * waited[1]
        self.until = max(self.until, now + calm)
        if kind == "crowd":
            self.at(now + 0.05, "crowd")

    def _comes_back(self, now: float, what: Any) -> None:
        (kind, _), give_up_at = what
        self.free += 1
        if now <= give_up_at:
            self.in_time += 1
        else:
            self.late += 1
        if kind == "crowd":
            self.at(now + 1e-4, "crowd")
        if self.queue:
            caller = self._next(now)
            self._serve(now, caller, self.queue.pop(caller)[2])
        if not self.queue:
            self.until = 0.0
        self._look_for_growth(now)

    def _serve(self, now: float, caller: tuple[str, int], give_up_at: float) -> None:
        self.free -= 1
        self.at(now + HOLD_S, "back", (caller, give_up_at))

    def _next(self, now: float) -> tuple[str, int]:
        queue = self.queue
        if self.discipline == "order" or now >= self.until:
            return next(iter(queue))
        if self.discipline == "most_left":
            return max(queue, key=lambda one: queue[one][0] + queue[one][1])
        self.turn += 1
        if self.discipline in {"share", "growth"} and self.turn % SHARE == 0:
            for caller, (since, limit, _) in queue.items():
                if now - since <= limit / 2:
                    return caller
        return next(reversed(queue))

    def _look_for_growth(self, now: float) -> None:
        """Take a queue whose shortest length has grown for 3 s for an overload."""
        began, before, grown = self.window
        self.least = min(self.least, len(self.queue))
        if self.discipline != "growth" or now - began < 1:
            return
        grown = grown + 1 if self.least > before else 0
        self.window, self.least = (now, self.least, grown), len(self.queue)
        since = next(iter(self.queue.values()), (now, 0.0, 0.0))[0]
        if grown >= GROWN and now - since > STANDING_S:
            self.until = max(self.until, now + 2 * self.case.timeout_s)


def main() -> None:
    """Print each case under each discipline."""
    for case in CASES:
        print(case.name)
        for discipline in DISCIPLINES:
            print(f"    {discipline:10} {Play(case, discipline).run()}")


if __name__ == "__main__":
    main()
