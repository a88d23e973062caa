"""`celery`: a worker of Celery forks from an application that has used its engine.

A real worker with three processes gets 40 tasks: most are to commit a row, some are to
fail, to exceed their soft time limit, or to be killed before or after their commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poolproof.drill.incident import Incident
from poolproof.drill.service import MEASURES, ServiceOutcome, lacks
from poolproof.drill.services.broker import redis_server

if TYPE_CHECKING:
    from poolproof.drill.stage import Stage

TASKS: Final = 40
WORKERS: Final = 3
_PATIENCE_S: Final = 4.0
_STOP_S: Final = 3.0


def play(stage: Stage) -> ServiceOutcome:
    """Let a worker do the tasks, and count what came of them."""
    # Celery may be missing, and the other incidents are played without it.
    from poolproof.drill.services.celery import serve  # noqa: PLC0415

    return serve(
        stage, tasks=TASKS, workers=WORKERS, patience_s=_PATIENCE_S, stop_s=_STOP_S
    )


def _lacks() -> str | None:
    missing = lacks("celery", "celery")()
    if missing is None and redis_server() is None:
        # Over files, what a killed process had may come back too late to be told.
        return 'no Redis (Debian\'s redis-server, and pip install "celery[redis]")'
    return missing


INCIDENT: Final = Incident(
    name="celery",
    headline="a Celery worker's processes inherit connections, fail, and are killed",
    play=play,
    is_long=True,
    measures=MEASURES,
    trials_max=2,
    bound_s=60.0,
    lacks=_lacks,
)
