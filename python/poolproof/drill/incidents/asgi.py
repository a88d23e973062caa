"""`asgi`: uvicorn serves a shop whose clients hang up in the middle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poolproof.drill import service, tasks
from poolproof.drill.incident import Incident
from poolproof.drill.services.asgi import serve
from poolproof.drill.target import ASYNCIO

if TYPE_CHECKING:
    from poolproof.drill.service import ServiceOutcome
    from poolproof.drill.stage import Stage

REQUESTS: Final = 200
REQUESTS_FULL: Final = 2000
_PATIENCE_S: Final = 5.0


def play(stage: Stage) -> ServiceOutcome:
    """Serve; every tenth client hangs up."""
    count = REQUESTS_FULL if stage.full else REQUESTS
    return serve(stage, requests=count, patience_s=_PATIENCE_S)


def _lacks() -> str | None:
    return (
        tasks.lacks()
        or service.lacks("starlette", "starlette")()
        or service.lacks("uvicorn", "drill")()
    )


INCIDENT: Final = Incident(
    name="asgi",
    headline="uvicorn serves a shop whose clients hang up in the middle",
    play=play,
    measures=service.MEASURES,
    is_long=True,
    trials_max=3,
    bound_s=120.0,
    lacks=_lacks,
    drivers=ASYNCIO,
)
