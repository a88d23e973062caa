"""`reap`: a pooler closes clients that idle too long.

The pool keeps its connections to a real PgBouncer in transaction mode, whose
``client_idle_timeout`` is shorter than some clients' pauses. A pooler, a load
balancer, a NAT gateway: each of them does this, and tells nobody beforehand.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from poolproof.drill.incident import HARM, Incident, Measure
from poolproof.drill.incidents.served import Served, count
from poolproof.drill.pooler import Pooler, lacks
from poolproof.drill.traffic import request, settle
from poolproof.drill.troupe import Troupe

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from poolproof.drill.player import Report
    from poolproof.drill.stage import Stage

CLIENTS: Final = 4
ROUNDS: Final = 3
BURST: Final = 5
IDLE_S: Final = 0.5
"""PgBouncer's ``client_idle_timeout``; it looks for such clients thrice a second."""

_LONG: Final = 3.0  # times that: one pause is surely longer


@dataclass(frozen=True, slots=True, kw_only=True)
class ReapOutcome(Served):
    """What clients with pauses saw of the reaper."""

    failed: int
    reaped: int
    queries: float


def play(stage: Stage) -> ReapOutcome:
    """Serve bursts of requests, with pauses shorter and longer than the reaper's."""
    arguments = {"prepare_threshold": None} if stage.driver == "psycopg" else {}
    with (
        Pooler(stage.target, client_idle_timeout=IDLE_S) as pooler,
        Troupe(is_idle=stage.is_idle) as troupe,
    ):
        engine = stage.engine(
            pooler.target,
            pool_size=CLIENTS,
            max_overflow=0,
            pool_pre_ping=True,
            connect_args=arguments,
            # As with the defaults, a ping comes before the reaper does.
            knobs={"ping_idle_after": IDLE_S / 2},
        )
        # Everybody pauses at once, so that no connection is used in between.
        pauses = [stage.rng.uniform(0.6, 2.4) * IDLE_S for _ in range(ROUNDS - 1)]
        pauses.append(_LONG * IDLE_S)
        for n in range(CLIENTS):
            troupe.thread(f"client{n}", _serve(engine, stage, f"client{n}", pauses))
        troupe.watch()
        stats = pooler.command("SHOW STATS_TOTALS")
        reaped = pooler.log().count("closing because: client_idle_timeout")
    account = settle(stage, troupe.players)
    if not troupe.has_stuck_thread:
        engine.dispose()
    asked = sum(int(row["query_count"]) for row in stats if row["database"] == "drill")
    return ReapOutcome(
        **count(account, troupe),
        failed=account.errors,
        reaped=reaped,
        queries=round(asked / max(1, account.requests), 2),
    )


def _serve(
    engine: Engine, stage: Stage, name: str, pauses: list[float]
) -> Callable[[Report], None]:
    """Return a client that serves a burst of requests after each pause."""

    def act(report: Report) -> None:
        for number, pause in enumerate([0.0, *pauses]):
            time.sleep(pause)
            for n in range(BURST):
                request(engine, stage, report, f"{name}/{number}", n)

    return act


INCIDENT: Final = Incident(
    name="reap",
    headline=f"a real PgBouncer closes clients that idle for {IDLE_S} s",
    play=play,
    measures=(
        Measure("failed", "requests that failed", is_fault=True),
        *HARM,
        Measure("reaped", "connections reaped"),
        Measure("queries", "queries for a request", over="median", unit=": 1"),
    ),
    batch=3,
    trials_max=6,
    lacks=lacks,
)
