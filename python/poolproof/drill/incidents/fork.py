"""`fork`: a preloaded service forks, and everybody uses the inherited pool.

The parent opens some connections and gives them back. Three children are forked,
and all four processes serve requests at once from what each believes to be its own
pool: Gunicorn with ``preload_app``, Celery prefork, ``luigi --workers``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from poolproof.drill.incident import HARM, Incident, Measure
from poolproof.drill.incidents.served import Served, count
from poolproof.drill.traffic import request, settle
from poolproof.drill.troupe import Troupe

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from poolproof.drill.player import Report
    from poolproof.drill.stage import Stage

CHILDREN: Final = 3
WARM: Final = 3
ROUNDS: Final = 25
_BEAT_S: Final = 0.004  # rounds start together, so that the processes meet


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkOutcome(Served):
    """What came of one preloaded fork."""

    errors: int


def play(stage: Stage) -> ForkOutcome:
    """Warm a pool, fork three children, serve from all four, count."""
    engine = stage.engine()
    warm = [engine.connect() for _ in range(WARM)]
    for connection in warm:
        connection.close()
    with Troupe(is_idle=stage.is_idle) as troupe:
        first_beat = time.monotonic() + 0.05
        for n in range(CHILDREN):
            troupe.fork(f"child{n}", _serve(engine, stage, f"child{n}", first_beat))
        troupe.thread("parent", _serve(engine, stage, "parent", first_beat))
        troupe.watch()
    account = settle(stage, troupe.players)
    return ForkOutcome(**count(account, troupe), errors=account.errors)


def _serve(
    engine: Engine, stage: Stage, name: str, first_beat: float
) -> Callable[[Report], None]:
    """Return a player that serves requests, each round in step with the others."""

    def act(report: Report) -> None:
        for n in range(ROUNDS):
            time.sleep(max(0.0, first_beat + n * _BEAT_S - time.monotonic()))
            request(engine, stage, report, name, n)

    return act


INCIDENT: Final = Incident(
    name="fork",
    headline="children and parent query connections that were pooled before the fork",
    play=play,
    measures=(
        *HARM,
        Measure("errors", "errors", is_harm=True),
    ),
    quick=2,
)
