"""A crowd of callers that is larger than a pool can serve, threads or greenlets.

    python bench/_crowd.py threads|gevent

A process of its own, because gevent replaces what it does in the whole of it. Each line
of its input is a run, as JSON; so is each line of its answer.
"""

from __future__ import annotations

import importlib
import sys

if __name__ == "__main__" and sys.argv[1] == "gevent":
    importlib.import_module("gevent.monkey").patch_all(sys=True)

import json
import random
import statistics
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from _stub import SocketDriver, make_engine
from sqlalchemy.exc import TimeoutError as SqlalchemyTimeoutError
from sqlalchemy.pool import QueuePool

import poolproof

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.pool import Pool

__all__ = ["HOLD_S", "SLOTS", "Answer", "Run", "steady_seconds"]

SLOTS = 5
HOLD_S = 0.05
POOLS = {"poolproof.Pool": poolproof.Pool, "QueuePool": QueuePool}
# A steady crowd, of which order of arrival could serve each in time: it holds for as
# long as it pauses, and once the holders keep theirs for so many times the time-out.
STEADY = 36
BEFORE, HICCUP, SETTLING, AFTER = 2.0, 1.2, 5.0, 5.0
# A thread is small here: there are hundreds.
STACK_BYTES = 256 * 1024


@dataclass(frozen=True)
class Run:
    """What is to be run.

    Attributes:
        side: Which pool.
        arrivals: ``"open"``: callers come at random, whatever becomes of the others;
            ``"closed"``: a crowd of which each asks again at once; ``"steady"``: one
            that can be served, after a pause each, and a hiccup.
        load: How many come, as a multiple of what can be served in time; not of a
            steady crowd.
        seconds: How long they come.
        patience_s: When a caller has no use for an answer any more, after it asked.
        timeout_s: The pool's `pool_timeout`.
    """

    side: str
    arrivals: str
    load: float
    seconds: float
    patience_s: float
    timeout_s: float


@dataclass
class Answer:
    """What became of the callers of a run.

    Attributes:
        in_time: Those who had done their work before their patience ended.
        late: Those who were served, too late.
        refused: Those who were not.
        holds_s: How long each slot was held.
        refusals_s: How long each of the refused had waited.
        settled_at: From when on is counted what follows.
        served_then: Those who were served since.
        refused_then: Those who were not.
    """

    in_time: int = 0
    late: int = 0
    refused: int = 0
    holds_s: list[float] = field(default_factory=list)
    refusals_s: list[float] = field(default_factory=list)
    settled_at: float = 0.0
    served_then: int = 0
    refused_then: int = 0

    def settle(self) -> dict[str, float]:
        """Return the numbers: the counts, the mean hold, the soonest refusal (or 0)."""
        return {
            "in_time": self.in_time,
            "late": self.late,
            "refused": self.refused,
            "hold_s": statistics.mean(self.holds_s or [HOLD_S]),
            "soonest_refusal_s": min(self.refusals_s, default=0.0),
            "served_then": self.served_then,
            "refused_then": self.refused_then,
        }


class Hiccup:
    """Once, those who come for a slot keep it.

    Args:
        at: When.
        lasts_s: For how long.
    """

    def __init__(self, at: float, lasts_s: float) -> None:
        self._at = at
        self._lasts_s = lasts_s
        self._left = [None] * SLOTS

    def keep(self, now: float) -> bool:
        """Keep a slot, if it is time; return whether it was."""
        if now < self._at:
            return False
        try:
            self._left.pop()
        except IndexError:
            return False
        time.sleep(self._lasts_s)
        return True


def steady_seconds(timeout_s: float) -> float:
    """Return how long a steady crowd is to be watched.

    Args:
        timeout_s: The pool's `pool_timeout`.
    """
    return timeout_s * (BEFORE + HICCUP + SETTLING + AFTER)


def play(run: Run) -> Answer:
    """Let a crowd come to a pool of its own.

    Args:
        run: What is to be run.
    """
    engine = make_engine(
        SocketDriver(), POOLS[run.side], SLOTS, pool_timeout=run.timeout_s
    )
    answer = Answer()
    end = time.monotonic() + run.seconds
    threads = list(_open(engine.pool, run, answer, end))
    for thread in threads:
        thread.join()
    engine.dispose()
    return answer


def _open(pool: Pool, run: Run, answer: Answer, end: float) -> Iterator[Any]:
    """Start the callers, each as it comes."""
    if run.arrivals == "steady":
        start, unit = time.monotonic(), run.timeout_s
        hiccup = Hiccup(start + BEFORE * unit, HICCUP * unit)
        answer.settled_at = start + (BEFORE + HICCUP + SETTLING) * unit
        for _ in range(STEADY):
            yield _start(_with_pauses, pool, run, answer, end, hiccup)
        return
    if run.arrivals == "closed":
        in_time = SLOTS * run.patience_s / HOLD_S
        for _ in range(round(run.load * in_time)):
            yield _start(_again_and_again, pool, run, answer, end)
        return
    coming = random.Random(3)  # noqa: S311 - the same arrivals each time
    due = time.monotonic()
    while (due := due + coming.expovariate(run.load * SLOTS / HOLD_S)) < end:
        time.sleep(max(0.0, due - time.monotonic()))
        yield _start(_once, pool, run, answer, end)


def _start(work: Any, *args: Any) -> threading.Thread:
    thread = threading.Thread(target=work, args=args)
    thread.start()
    return thread


def _again_and_again(pool: Pool, run: Run, answer: Answer, end: float) -> None:
    while time.monotonic() < end:
        _once(pool, run, answer, end)


def _with_pauses(
    pool: Pool, run: Run, answer: Answer, end: float, hiccup: Hiccup
) -> None:
    while time.monotonic() < end:
        _once(pool, run, answer, end, hiccup)
        time.sleep(HOLD_S)


def _once(
    pool: Pool, run: Run, answer: Answer, end: float, hiccup: Hiccup | None = None
) -> None:
    asked = time.monotonic()
    try:
        connection = pool.connect()
    except SqlalchemyTimeoutError:
        refused = time.monotonic()
        answer.refusals_s.append(refused - asked)
        answer.refused += 1
        answer.refused_then += answer.settled_at < refused <= end
        return
    got = time.monotonic()
    if not hiccup or not hiccup.keep(got):
        time.sleep(HOLD_S)
    connection.close()
    back = time.monotonic()
    answer.holds_s.append(back - got)
    answer.served_then += answer.settled_at < back <= end
    if back - asked > run.patience_s:
        answer.late += 1
    elif back <= end:  # what is served afterwards meets no overload
        answer.in_time += 1


def main() -> None:
    """Play what is asked for, until the input ends."""
    threading.stack_size(STACK_BYTES)
    for line in sys.stdin:
        answer = play(Run(**json.loads(line)))
        print(json.dumps(answer.settle()), flush=True)


if __name__ == "__main__":
    main()
