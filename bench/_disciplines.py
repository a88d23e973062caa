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
# Of `counted`, `longer` and `weighed`, as in `src/pool/overload.rs`.
MARGIN, LONGER, SOON, LONGEST, WEIGHT, MOST_WEIGHT = 1.1, 4, 4, 32, 4, 64
HICCUP_AT_S, HICCUP = 5.0, 1.2
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
        pause_s: How long one of a crowd pauses before it asks again.
        hiccup: Once, all holders keep what they have for 1.2 times `timeout_s`.
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
    pause_s: float = 1e-4
    hiccup: bool = False
    seconds: float = 60.0


CASES = (
    Case("open, 1.2 × the load", load=1.2),
    Case("open, 1.5 × the load", load=1.5),
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
    *(
        Case(
            f"crowd of {crowd} that pauses, has {timeout_s} s, and a hiccup",
            crowd=crowd,
            pause_s=0.05,
            patience_s=timeout_s,
            timeout_s=timeout_s,
            hiccup=True,
        )
        for crowd, timeout_s in ((36, 0.5), (36, 1.0), (36, 2.0), (48, 0.5))
    ),
    Case(
        "crowd of 36 that pauses, has 0.5 s, and five a second who have 0.05 s",
        crowd=36,
        pause_s=0.05,
        patience_s=0.5,
        timeout_s=0.5,
        hurried_s=0.05,
        hurried_each_s=0.2,
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
# same as `share`, entered as well when the queue has grown for three seconds on end. As
# `share`, but what runs out of time and order had served counts for nothing; lasts
# longer when it begins again soon; nor do those in a hurry count, where others were
# refused for them in vain.
DISCIPLINES = (
    "order",
    "newest",
    "calm",
    "share",
    "most_left",
    "growth",
    "counted",
    "longer",
    "weighed",
)
COUNTED = {"counted", "longer", "weighed"}


@dataclass(frozen=True)
class Waiting:
    """A caller in the queue.

    Attributes:
        since: When it came.
        limit: When the pool refuses it, after that.
        give_up_at: When it has no use for an answer any more.
        before: How many waited or had a slot then.
        given: How many slots had been given to waiting callers by then.
    """

    since: float
    limit: float
    give_up_at: float
    before: int
    given: int


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
    given: int = 0
    left_at: float = -NEVER
    lasts: float = 0.0
    in_vain: tuple[float, int] = (0.0, 0)
    least: int = 0
    window: tuple[float, int, int] = (0.0, 0, 0)
    queue: dict[tuple[str, int], Waiting] = field(default_factory=dict)
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
        if case.hiccup:
            self.at(HICCUP_AT_S, "hiccup")
        while self.events and self.events[0][0] <= case.seconds:
            now, _, kind, what = heapq.heappop(self.events)
            if kind == "over":
                self._time_is_over(now, what)
            elif kind == "back":
                self._comes_back(now, what)
            elif kind == "hiccup":
                self._hold_on()
            else:
                self._comes(now, kind)
        capacity = SLOTS / HOLD_S * case.seconds
        return (
            f"{100 * self.in_time / capacity:5.1f} % in time, "
            f"{self.late} late, {self.refused} refused"
        )

    def _hold_on(self) -> None:
        longer = HICCUP * self.case.timeout_s
        self.events = [
            (when + longer * (kind == "back"), number, kind, what)
            for when, number, kind, what in self.events
        ]
        heapq.heapify(self.events)

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
            before = len(self.queue) + SLOTS - self.free
            self.queue[caller] = Waiting(now, limit, now + patience, before, self.given)
            self.at(now + limit, "over", caller)
        self._look_for_growth(now)

    def _time_is_over(self, now: float, caller: Any) -> None:
        waited = self.queue.pop(caller, None)
        if waited is None:
            return
        kind, _ = caller
        self.refused += kind != "hurried"
        if self.discipline in COUNTED:
            self._count(now, waited)
        elif self.discipline in {"newest", "most_left"}:
            self.until = NEVER
        else:
            self.until = max(self.until, now + 2 * waited.limit)
        if kind == "crowd":
            self._comes_again(now, max(self.case.pause_s, 0.05))

    def _comes_again(self, now: float, pause_s: float) -> None:
        jitter = self.random.random() * 1e-3 if self.case.hiccup else 0.0
        self.at(now + pause_s + jitter, "crowd")

    def _count(self, now: float, waiting: Waiting) -> None:
        """Let a time-out begin or prolong newest first, if it tells of an overload."""
        self._leave_if_over(now)
        waited = waiting.limit
        shortest, weight = self.in_vain
        if self.given - waiting.given >= MARGIN * waiting.before:
            shortest = min(shortest, waited) if weight else waited
            self.in_vain = (shortest, min(weight + WEIGHT, MOST_WEIGHT))
            return
        if self.discipline == "weighed" and weight and waited < shortest / 2:
            self.in_vain = (shortest, weight - 1)
            return
        lasts = waited
        if not self.until:
            soon = now - self.left_at < SOON * self.lasts
            if self.discipline != "counted" and soon:
                lasts = min(max(LONGER * self.lasts, waited), LONGEST * waited)
            self.lasts = lasts
        self.until = max(self.until, now + lasts)

    def _leave_if_over(self, now: float) -> None:
        if self.until and now >= self.until:
            self.left_at, self.until = self.until, 0.0

    def _comes_back(self, now: float, what: Any) -> None:
        (kind, _), give_up_at = what
        self.free += 1
        if now <= give_up_at:
            self.in_time += 1
        else:
            self.late += 1
        if kind == "crowd":
            self._comes_again(now, self.case.pause_s)
        if self.queue:
            self._leave_if_over(now)
            caller = self._next(now)
            self.given += 1
            self._serve(now, caller, self.queue.pop(caller).give_up_at)
        if not self.queue:
            if self.until:
                self.left_at, self.until = now, 0.0
            self.in_vain = (0.0, 0)
        self._look_for_growth(now)

    def _serve(self, now: float, caller: tuple[str, int], give_up_at: float) -> None:
        self.free -= 1
        self.at(now + HOLD_S, "back", (caller, give_up_at))

    def _next(self, now: float) -> tuple[str, int]:
        queue = self.queue
        if self.discipline == "order" or now >= self.until:
            return next(iter(queue))
        if self.discipline == "most_left":
            return max(queue, key=lambda one: queue[one].since + queue[one].limit)
        self.turn += 1
        shares = self.discipline in {"share", "growth", *COUNTED}
        if shares and self.turn % SHARE == 0:
            for caller, waiting in queue.items():
                if now - waiting.since <= waiting.limit / 2:
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
        since = next((waiting.since for waiting in self.queue.values()), now)
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
