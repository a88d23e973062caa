"""How much of a pool's capacity serves callers in time, when too many come."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from _crowd import HOLD_S, POOLS, SLOTS, STEADY, Run, steady_seconds
from _rounds import Number, Story

METHOD = f"""
Callers come to {SLOTS} slots, hold one for {HOLD_S * 1e3:g} ms (`time.sleep`), and have
no use for an answer that comes later than 0.4 s after they asked; `pool_timeout` is 0.4
as well. Open: they come at random (Poisson, one thread or greenlet each) at a multiple
of what the slots can serve. Closed: a crowd, that multiple of what can be served within
the patience, of which each asks again at once. In time is who has given the slot back
within its patience; capacity is slots x seconds / mean hold, as measured in the same
run. Steady: {STEADY} callers who pause for as long as they hold, of whom order of
arrival could serve each in half of its time; once, all holders keep theirs for 1.2
`pool_timeout`; counted are those who are refused later than 5 `pool_timeout` after
that. Both pools run within each round, in alternating order, on connections that are
open already; threads and greenlets in a process each, which plays nothing else.
"""
SECONDS = 3.0
SHORTEST = 0.05  # of that, and of the patience, in a trial
PATIENCE_S = 0.4
LOADS = (1.2, 2.0, 10.0)
ENOUGH = 85  # percent of capacity
STEADY_TIMEOUTS_S = (0.5, 1.0)
FEW = 1  # percent of those who ask


class Crowd:
    """A process that plays crowds of one kind.

    Args:
        kind: ``"threads"`` or ``"gevent"``.
    """

    def __init__(self, kind: str) -> None:
        script = Path(__file__).with_name("_crowd.py")
        self._process = subprocess.Popen(  # noqa: S603 - of this folder
            [sys.executable, str(script), kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def play(self, run: Run) -> dict[str, float]:
        """Play a run.

        Raises:
            ChildProcessError: The process has ended; its traceback is on standard
                error.
        """
        asked, answers = self._process.stdin, self._process.stdout
        if asked is None or answers is None:
            raise ChildProcessError(self._process.args)
        print(json.dumps(asdict(run)), file=asked, flush=True)
        line = answers.readline()
        if not line:
            raise ChildProcessError(f"the process of {run} has ended")
        answer: dict[str, float] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def share(answer: dict[str, float], seconds: float) -> float:
    """Return the percentage of capacity that served callers in time."""
    return 100 * answer["in_time"] * answer["hold_s"] / (SLOTS * seconds)


def refused(answer: dict[str, float]) -> float:
    """Return the percentage of those who asked, once it had settled, and got none."""
    asked = answer["served_then"] + answer["refused_then"]
    return 100 * answer["refused_then"] / max(asked, 1)


def main() -> int:
    """Measure and report."""
    story = Story("overload", METHOD, rounds=7)
    scale = max(story.scale, SHORTEST)
    seconds, patience = SECONDS * scale, PATIENCE_S * scale
    cases = [
        (kind, arrivals, load)
        for kind in ("threads", "gevent")
        for arrivals in ("closed", "open")
        for load in LOADS
    ]
    cases += [
        (kind, "steady", timeout)
        for kind in ("threads", "gevent")
        for timeout in STEADY_TIMEOUTS_S
    ]
    answers: dict[tuple[object, ...], list[dict[str, float]]] = {
        (*case, side): [] for case in cases for side in POOLS
    }

    def run_of(side: str, arrivals: str, load: float) -> Run:
        if arrivals != "steady":
            return Run(side, arrivals, load, seconds, patience, patience)
        limit = load * scale
        return Run(side, arrivals, 0.0, steady_seconds(limit), limit, limit)

    for kind in ("threads", "gevent"):
        crowd = Crowd(kind)
        for number in story.rounds(kind):
            for case in [case for case in cases if case[0] == kind]:
                for side in POOLS if number % 2 else reversed(POOLS):
                    answers[(*case, side)].append(crowd.play(run_of(side, *case[1:])))
        crowd.close()
    for case in cases:
        kind, arrivals, load = case
        steady = arrivals == "steady"
        ours, theirs = (
            [
                refused(answer) if steady else share(answer, seconds)
                for answer in answers[(*case, side)]
            ]
            for side in POOLS
        )
        beside = {"QueuePool (%)": statistics.median(theirs)}
        if steady:
            name = f"{kind}, steady, pool_timeout={load:g}: refused"
            story.add(Number(name, "%", ours, at_most=FEW, sides=beside))
            continue
        name = f"{kind}, {arrivals}, {load:g} × the load: in time"
        story.add(Number(name, "%", ours, at_least=ENOUGH, sides=beside))
    waits = [one["soonest_refusal_s"] for given in answers.values() for one in given]
    soonest = min((wait for wait in waits if wait), default=0.0)
    story.facts["soonest refusal after"] = f"{soonest:.3f} s"
    return story.report()


if __name__ == "__main__":
    sys.exit(main())
