"""The incidents, one file each, and the families that they make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from poolproof.drill.incident import Incident, Measure, Outcome
from poolproof.drill.incidents import (
    asgi,
    blackhole,
    cancel_storm,
    celery,
    cold_start,
    commit_lost,
    corruption,
    fork,
    gunicorn,
    hang,
    held_at_fork,
    interrupt,
    lease_reaped,
    luigi,
    overload,
    read_only,
    reap,
    refused,
    restart,
    stale_answer,
    starvation,
    terminate,
    two_loops,
)


@dataclass(frozen=True, slots=True)
class Family:
    """Incidents that do a service the same harm: one line of the drill's summary."""

    name: str
    harm: str
    """What goes wrong in it, in a user's words."""

    incidents: tuple[Incident, ...]


FAMILIES: Final = (
    Family("forks", "wrong, lost or hung", (fork.INCIDENT, held_at_fork.INCIDENT)),
    Family(
        "services",
        "wrong, lost or failed",
        (
            gunicorn.INCIDENT,
            celery.INCIDENT,
            luigi.INCIDENT,
            asgi.INCIDENT,
            two_loops.INCIDENT,
        ),
    ),
    Family(
        "stray bytes",
        "wrong or failed",
        (corruption.INCIDENT, stale_answer.INCIDENT),
    ),
    Family(
        "cut short",
        "wrong, failed or held up",
        (interrupt.INCIDENT, cancel_storm.INCIDENT),
    ),
    Family(
        "sessions",
        "failed, or given up",
        (terminate.INCIDENT, reap.INCIDENT, read_only.INCIDENT),
    ),
    Family(
        "outages",
        "failed, or told late",
        (restart.INCIDENT, refused.INCIDENT, cold_start.INCIDENT),
    ),
    Family("commits", "work lost or done twice", (commit_lost.INCIDENT,)),
    Family("crowds", "not served in time", (starvation.INCIDENT, overload.INCIDENT)),
    Family("silence", "calls without an end", (hang.INCIDENT, blackhole.INCIDENT)),
    Family("leases", "lost, or held twice", (lease_reaped.INCIDENT,)),
)
"""Every incident, in the order of the drill's tables."""

INCIDENTS: Final[dict[str, Incident]] = {
    incident.name: incident for family in FAMILIES for incident in family.incidents
}
"""Every incident by its name; a new one is a file, and a word in `FAMILIES`."""

__all__ = ["FAMILIES", "INCIDENTS", "Family", "Incident", "Measure", "Outcome"]
