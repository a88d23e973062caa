"""One process that plays a batch of trials and writes down what came of each.

Run as ``python -m poolproof.drill.trial``. The order (`Order`) is one line of JSON on
stdin, because it holds the database's URL with its password; the answer is one line
of JSON on stdout for each trial. It leads its own process group, and ends with its
players when it is told to (SIGTERM) or when the drill is gone.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from dataclasses import dataclass
from typing import Any

from poolproof.drill.incidents import INCIDENTS
from poolproof.drill.stage import Stage
from poolproof.drill.target import Target

_SLOWEST = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What one process is to play."""

    incident: str
    driver: str
    pool: str
    table: str
    seed: int
    trials: tuple[int, ...]
    full: bool
    url: str = dataclasses.field(repr=False)

    def dump(self) -> str:
        """Return the order as one line of JSON, the URL's password included."""
        return json.dumps(dataclasses.asdict(self)) + "\n"

    @classmethod
    def load(cls, line: str) -> Order:
        """Read an order back."""
        fields: dict[str, Any] = json.loads(line)
        return cls(**{**fields, "trials": tuple(fields["trials"])})


def main() -> int:
    """Play the batch that stdin orders."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the drill decides, not the terminal
    order = Order.load(sys.stdin.readline())
    incident = INCIDENTS[order.incident]
    target = Target.parse(order.url)
    for trial in order.trials:
        # Should the drill be killed; otherwise it ends us when we are late.
        signal.alarm(int(_SLOWEST * incident.bound_s))
        stage = Stage(
            target=target,
            driver=order.driver,
            pool=order.pool,
            table=order.table,
            seed=order.seed,
            trial=trial,
            incident=order.incident,
            full=order.full,
        )
        try:
            outcome = incident.play(stage)
        except Exception as error:  # noqa: BLE001 (a trial that could not be set up)
            first = str(error).strip().splitlines() or [""]
            _write({"trial": trial, "broken": f"{type(error).__name__}: {first[0]}"})
            return 1
        _write({"trial": trial, "outcome": dataclasses.asdict(outcome)})
        if outcome.stuck:
            os._exit(0)  # a hanging thread would keep the interpreter from ending
    return 0


def _write(line: dict[str, Any]) -> None:
    """Write one line of the answer, at once."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)
