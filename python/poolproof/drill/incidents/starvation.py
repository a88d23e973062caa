"""`starvation`: many threads want few connections; does each get its turn?"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from poolproof.drill.incident import Incident, Measure, Outcome
from poolproof.drill.latency import by_step

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from poolproof.drill.stage import Stage

THREADS: Final = 32
SLOTS: Final = 4
HOLD_S: Final = 0.001
LENGTH_S: Final = 1.2
_PATIENCE_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StarvationOutcome(Outcome):
    """How fairly the slots were shared."""

    longest_wait_ms: float
    served_ratio: float
    """Most served thread to least served one; a thread never served counts as ½."""

    never_served: int
    requests: int
    hangs: int


class _Crowd:
    """The threads' own notes; each thread writes only where it alone writes."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.served = [0] * THREADS
        self.longest_s = [0.0] * THREADS
        self.took_s: list[list[float]] = [[] for _ in range(THREADS)]
        self.waiting_since = [0.0] * THREADS
        self.barrier = threading.Barrier(THREADS + 1)
        self.end = 0.0

    def serve(self, n: int) -> None:
        self.barrier.wait()
        while (asked := time.monotonic()) < self.end:
            self.waiting_since[n] = asked
            with self.engine.connect():
                got = time.monotonic()
                self.took_s[n].append(got - asked)
                self.longest_s[n] = max(self.longest_s[n], min(got, self.end) - asked)
                if got < self.end:
                    self.served[n] += 1
                    time.sleep(HOLD_S)
        self.waiting_since[n] = 0.0


def play(stage: Stage) -> StarvationOutcome:
    """Let 32 threads take turns on 4 connections for a fixed time."""
    engine = stage.engine(pool_size=SLOTS, max_overflow=0, pool_timeout=_PATIENCE_S)
    for connection in [engine.connect() for _ in range(SLOTS)]:
        connection.close()
    crowd = _Crowd(engine)
    threads = [
        threading.Thread(target=crowd.serve, args=(n,), daemon=True)
        for n in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    crowd.end = time.monotonic() + LENGTH_S
    crowd.barrier.wait()
    last = crowd.end + _PATIENCE_S + 1.0
    for thread in threads:
        thread.join(max(0.0, last - time.monotonic()))
    hangs = sum(thread.is_alive() for thread in threads)
    if not hangs:
        engine.dispose()
    return StarvationOutcome(
        longest_wait_ms=round(max(crowd.longest_s) * 1000, 1),
        served_ratio=round(max(crowd.served) / max(0.5, min(crowd.served)), 2),
        never_served=sum(served == 0 for served in crowd.served),
        requests=sum(crowd.served),
        hangs=hangs,
        took=by_step(seconds for own in crowd.took_s for seconds in own),
        stuck=bool(hangs),
    )


INCIDENT: Final = Incident(
    name="starvation",
    headline=f"{THREADS} threads share {SLOTS} connections, each holds one for 1 ms",
    play=play,
    measures=(
        Measure("longest_wait_ms", "longest wait", over="median", unit="ms"),
        Measure("served_ratio", "most to least served", over="median", unit=": 1"),
        Measure("never_served", "threads never served", is_harm=True),
        Measure("hangs", "hangs", is_fault=True),
        Measure("requests", "requests served", more_is_right=True),
    ),
    note='a thread never served counts as half a request in "most to least served"',
    batch=5,
    place="alone",
    trials_max=5,
)
