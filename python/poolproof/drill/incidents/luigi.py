"""`luigi`: ``luigi.build(workers=4)`` forks each task from a process with a warm pool.

The service is Luigi itself, in processes of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poolproof.drill.incident import Incident
from poolproof.drill.service import MEASURES, lacks
from poolproof.drill.services import luigi

if TYPE_CHECKING:
    from poolproof.drill.service import ServiceOutcome
    from poolproof.drill.stage import Stage

TASKS: Final = 26
_PATIENCE_S: Final = 3.0


def play(stage: Stage) -> ServiceOutcome:
    """Have Luigi run a short pipeline."""
    return luigi.serve(stage, tasks=TASKS, patience_s=_PATIENCE_S)


INCIDENT: Final = Incident(
    name="luigi",
    headline="luigi.build forks a process for each task from one with a warm pool",
    play=play,
    is_long=True,
    measures=MEASURES,
    trials_max=2,
    lacks=lacks("luigi", "luigi"),
)
