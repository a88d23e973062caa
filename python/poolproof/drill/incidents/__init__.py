"""The incidents, one file each; a new one is a file and a line here."""

from __future__ import annotations

from typing import Final

from poolproof.drill.incident import Incident, Measure, Outcome
from poolproof.drill.incidents import (
    blackhole,
    celery,
    commit_lost,
    corruption,
    fork,
    gunicorn,
    hang,
    held_at_fork,
    interrupt,
    lease_reaped,
    luigi,
    reap,
    restart,
    stale_answer,
    starvation,
    terminate,
)

INCIDENTS: Final[dict[str, Incident]] = {
    incident.name: incident
    for incident in (
        fork.INCIDENT,
        held_at_fork.INCIDENT,
        starvation.INCIDENT,
        corruption.INCIDENT,
        stale_answer.INCIDENT,
        interrupt.INCIDENT,
        terminate.INCIDENT,
        reap.INCIDENT,
        lease_reaped.INCIDENT,
        restart.INCIDENT,
        commit_lost.INCIDENT,
        hang.INCIDENT,
        blackhole.INCIDENT,
        gunicorn.INCIDENT,
        celery.INCIDENT,
        luigi.INCIDENT,
    )
}
"""Every incident by its name, in the order of the drill's table."""

__all__ = ["INCIDENTS", "Incident", "Measure", "Outcome"]
