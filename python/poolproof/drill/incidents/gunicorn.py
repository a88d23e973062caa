"""`gunicorn`: a preloaded shop is served by forked workers, one of which is killed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poolproof.drill.incident import Incident
from poolproof.drill.service import MEASURES, lacks
from poolproof.drill.services.gunicorn import serve

if TYPE_CHECKING:
    from poolproof.drill.service import ServiceOutcome
    from poolproof.drill.stage import Stage

REQUESTS: Final = 200
_PATIENCE_S: Final = 5.0


def play(stage: Stage) -> ServiceOutcome:
    """Serve a few requests, kill a worker half-way."""
    return serve(stage, requests=REQUESTS, kills=1, patience_s=_PATIENCE_S)


def _lacks() -> str | None:
    return lacks("gunicorn", "gunicorn")() or lacks("flask", "flask")()


INCIDENT: Final = Incident(
    name="gunicorn",
    headline="Gunicorn forks a shop that was loaded before, and a worker is killed",
    play=play,
    is_long=True,
    measures=MEASURES,
    trials_max=3,
    bound_s=120.0,
    lacks=_lacks,
)
