"""`cold-start`: the server sleeps, and needs longer to wake than a pool's timeout.

A database that scales to zero takes the connection at once and answers when it is up.
``pool_timeout`` says how long to wait for a connection of the pool; whoever opens one
has said nothing of how long that may take.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from poolproof.drill.incident import Incident, Measure, Outcome
from poolproof.drill.player import first_line
from poolproof.drill.proxy import Proxy
from poolproof.drill.traffic import pick, texts

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from poolproof.drill.stage import Stage

CALLERS: Final = 8
_QUICK_S: Final = (7.0, 1.0)
_FULL_S: Final = (12.0, 5.0)
"""How long the server needs to wake, and ``pool_timeout``."""

_END_S: Final = 20.0
_ASK: Final = text("SELECT CAST(:token AS text)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdStartOutcome(Outcome):
    """What the first requests of the morning came to."""

    failed: int
    wrong: int
    hangs: int
    served: int
    last_ms: float


def play(stage: Stage) -> ColdStartOutcome:
    """Let eight callers come at once to a server that sleeps."""
    wakes_s, timeout_s = _FULL_S if stage.full else _QUICK_S
    errors: list[str] = []
    wrong: list[str] = []
    served: list[float] = []
    with Proxy(stage.target.address()) as proxy:
        engine = stage.engine(
            stage.target.through(proxy.port),
            pool_size=CALLERS,
            max_overflow=0,
            pool_timeout=timeout_s,
        )
        proxy.stall()
        began = time.monotonic()

        def call(n: int) -> None:
            token = f"{stage.tag}/{n}"
            try:
                answer = _ask(engine, token)
            except SQLAlchemyError as error:
                errors.append(first_line(error))
                return
            served.append(time.monotonic() - began)
            if answer != token:
                wrong.append(f"asked for {token}, got {answer}")

        callers = [
            threading.Thread(target=call, args=(n,), daemon=True)
            for n in range(CALLERS)
        ]
        for caller in callers:
            caller.start()
        time.sleep(wakes_s)
        proxy.resume()
        last = time.monotonic() + _END_S
        for caller in callers:
            caller.join(max(0.0, last - time.monotonic()))
        hangs = sum(caller.is_alive() for caller in callers)
        if not hangs:
            engine.dispose()
    return ColdStartOutcome(
        failed=len(errors),
        wrong=len(wrong),
        hangs=hangs,
        served=len(served),
        last_ms=round(max(served, default=0.0) * 1000, 1),
        samples=pick(wrong, errors),
        heard=texts(errors),
        stuck=bool(hangs),
    )


def _ask(engine: Engine, token: str) -> object:
    """Have one answer."""
    with engine.connect() as connection:
        return connection.execute(_ASK, {"token": token}).scalar()


INCIDENT: Final = Incident(
    name="cold-start",
    headline="the server needs longer to wake than the pool's timeout",
    play=play,
    is_long=True,
    measures=(
        Measure("failed", "requests that failed", is_fault=True),
        Measure("wrong", "wrong results", is_fault=True),
        Measure("hangs", "hangs", is_fault=True),
        Measure("served", "requests served", more_is_right=True),
        Measure("last_ms", "until the last was served", over="worst", unit="ms"),
    ),
    trials_max=2,
    uses_proxy=True,
)
