"""`overload`: more callers than the pool can serve, and each gives up after a while.

Whoever is served in the order of arrival is then served too late, all of them: the
pool works at its full speed, and for nobody. How many get their answer in time?
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from poolproof.drill.incident import Incident, Measure, Outcome
from poolproof.drill.latency import by_step
from poolproof.drill.player import first_line
from poolproof.drill.traffic import pick, texts, warm

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from poolproof.drill.stage import Stage

CALLERS: Final = 60
SLOTS: Final = 5
HOLD_S: Final = 0.05
PATIENCE_S: Final = 0.4
"""How long a caller waits for its answer; it is also the pool's ``pool_timeout``."""

ENOUGH: Final = 0.85
"""Of what the slots could serve, as measured in the same window."""

_RUSH_S: Final = 0.8  # not counted: the first callers all come at once
_LENGTH_S: Final = 2.0
_FULL_S: Final = 8.0
_SLOW: Final = text("SELECT pg_sleep(:s)")
_END_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OverloadOutcome(Outcome):
    """Who got an answer in time."""

    missing: int
    in_time: int
    capacity: int
    late: int
    refused: int
    hangs: int


class _Crowd:
    """The callers' own notes; each one writes only where it alone writes."""

    def __init__(self, engine: Engine, length_s: float) -> None:
        self.engine = engine
        self.opens_at = time.monotonic() + _RUSH_S
        self.closes_at = self.opens_at + length_s
        self.in_time = [0] * CALLERS
        self.late = [0] * CALLERS
        self.took_s: list[list[float]] = [[] for _ in range(CALLERS)]
        self.holds: list[list[float]] = [[] for _ in range(CALLERS)]
        self.errors: list[list[str]] = [[] for _ in range(CALLERS)]

    def call(self, n: int) -> None:
        """Ask again and again until it is over; what is answered while it counts."""
        while (asked := time.monotonic()) < self.closes_at:
            try:
                held_s = self._ask()
            except SQLAlchemyError as error:
                self.errors[n].append(first_line(error))
                self.took_s[n].append(time.monotonic() - asked)
                continue
            answered = time.monotonic()
            self.took_s[n].append(answered - asked)
            if not self.opens_at <= answered < self.closes_at:
                continue
            self.holds[n].append(held_s)
            counts = self.in_time if answered - asked <= PATIENCE_S else self.late
            counts[n] += 1

    def _ask(self) -> float:
        """Have one answer; return for how long that took a connection."""
        with self.engine.connect() as connection:
            began = time.monotonic()
            connection.execute(_SLOW, {"s": HOLD_S})
        return time.monotonic() - began


def play(stage: Stage) -> OverloadOutcome:
    """Let twelve times as many callers come as there are connections."""
    length_s = _FULL_S if stage.full else _LENGTH_S
    engine = stage.engine(pool_size=SLOTS, max_overflow=0, pool_timeout=PATIENCE_S)
    warm(engine, SLOTS)
    crowd = _Crowd(engine, length_s)
    threads = [
        threading.Thread(target=crowd.call, args=(n,), daemon=True)
        for n in range(CALLERS)
    ]
    for thread in threads:
        thread.start()
    last = crowd.closes_at + _END_S
    for thread in threads:
        thread.join(max(0.0, last - time.monotonic()))
    hangs = sum(thread.is_alive() for thread in threads)
    if not hangs:
        engine.dispose()
    holds = [seconds for own in crowd.holds for seconds in own]
    mean_s = sum(holds) / len(holds) if holds else HOLD_S
    capacity = SLOTS * length_s / mean_s
    in_time = sum(crowd.in_time)
    errors = [error for own in crowd.errors for error in own]
    return OverloadOutcome(
        missing=max(0, round(ENOUGH * capacity) - in_time),
        in_time=in_time,
        capacity=round(capacity),
        late=sum(crowd.late),
        refused=len(errors),
        hangs=hangs,
        samples=pick(errors),
        heard=texts(errors),
        took=by_step(seconds for own in crowd.took_s for seconds in own),
        stuck=bool(hangs),
    )


INCIDENT: Final = Incident(
    name="overload",
    headline=f"{CALLERS} callers want {SLOTS} connections, and give up after 0.4 s",
    play=play,
    measures=(
        Measure("missing", "answers missing to 85 % of capacity", is_fault=True),
        Measure("hangs", "hangs", is_fault=True),
        Measure("in_time", "answers in time", more_is_right=True),
        Measure("capacity", "capacity, as measured meanwhile"),
        Measure("late", "answers that came too late"),
        Measure("refused", "callers told that the pool is busy"),
    ),
    place="alone",
    trials_max=3,
)
