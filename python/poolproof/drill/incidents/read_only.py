"""`read-only`: a service that may only read tries to write by mistake, now and then.

A replica, a role for reports: the server says 25006, and that the next statement may
go on. An error of the service costs the service nothing but that request; a pool that
takes it for a failover replaces its connections each time.
"""

from __future__ import annotations

import statistics
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event, text
from sqlalchemy.exc import SQLAlchemyError

from poolproof.drill.incident import Incident, Measure, Outcome
from poolproof.drill.latency import by_step
from poolproof.drill.pace import is_over
from poolproof.drill.player import first_line
from poolproof.drill.traffic import pick, texts, warm

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from poolproof.drill.stage import Stage

CLIENTS: Final = 5
MISTAKE_EVERY: Final = 20
REQUESTS: Final = 100
"""Of each client; in full so many times ten."""

_ASK: Final = text("SELECT CAST(:token AS text)")
_PERCENT: Final = 95
_LONG_S: Final = 20.0
_LOOK_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOnlyOutcome(Outcome):
    """What mistaken writes cost those who read."""

    extra: int
    failed: int
    wrong: int
    hangs: int
    mistakes: int
    sessions: int
    slow_ms: float


class _Service:
    """The clients, and what each saw; a client writes only what is its own."""

    def __init__(self, stage: Stage, engine: Engine, requests: int) -> None:
        self.sessions = 0
        self.took_s: list[list[float]] = [[] for _ in range(CLIENTS)]
        self.failed: list[list[str]] = [[] for _ in range(CLIENTS)]
        self.told: list[list[str]] = [[] for _ in range(CLIENTS)]
        self.wrong: list[list[str]] = [[] for _ in range(CLIENTS)]
        self._stage = stage
        self._engine = engine
        self._requests = requests
        event.listen(engine, "connect", self._opened)

    def _opened(self, *_: Any) -> None:
        self.sessions += 1

    def serve(self, client: int) -> None:
        """Read, and every twentieth time write by mistake."""
        for n in range(self._requests):
            if n % MISTAKE_EVERY == MISTAKE_EVERY - 1:
                self._write(client)
            else:
                self._read(client, n)

    def _read(self, client: int, n: int) -> None:
        token = f"{self._stage.tag}/{client}/{n}"
        began = time.monotonic()
        try:
            with self._engine.connect() as connection:
                answer = connection.execute(_ASK, {"token": token}).scalar()
        except SQLAlchemyError as error:
            self.failed[client].append(first_line(error))
            return
        self.took_s[client].append(time.monotonic() - began)
        if answer != token:
            self.wrong[client].append(f"asked for {token}, got {answer}")

    def _write(self, client: int) -> None:
        try:
            with self._engine.begin() as connection:
                connection.execute(self._stage.insert(), {"id": f"{client}"})
        except SQLAlchemyError as error:
            self.told[client].append(first_line(error))


def _reading_only(driver: str) -> dict[str, Any]:
    """Return the connect arguments of a session that may only read."""
    if driver == "pg8000":
        return {"startup_params": {"default_transaction_read_only": "on"}}
    return {"options": "-c default_transaction_read_only=on"}


def play(stage: Stage) -> ReadOnlyOutcome:
    """Let five clients read, and write by mistake one time in twenty."""
    engine = stage.engine(
        pool_size=CLIENTS,
        max_overflow=0,
        pool_pre_ping=True,
        connect_args=_reading_only(stage.driver),
    )
    service = _Service(stage, engine, REQUESTS * (10 if stage.full else 1))
    warm(engine, CLIENTS)
    threads = [
        threading.Thread(target=service.serve, args=(n,), daemon=True)
        for n in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    for thread in threads:
        while thread.is_alive() and not is_over(began, _LONG_S):
            thread.join(_LOOK_S)
    hangs = sum(thread.is_alive() for thread in threads)
    if not hangs:
        engine.dispose()
    took = sorted(seconds for own in service.took_s for seconds in own)
    told = [error for own in service.told for error in own]
    failed = [error for own in service.failed for error in own]
    wrong = [answer for own in service.wrong for answer in own]
    return ReadOnlyOutcome(
        extra=max(0, service.sessions - CLIENTS),
        failed=len(failed),
        wrong=len(wrong),
        hangs=hangs,
        mistakes=len(told),
        sessions=service.sessions,
        slow_ms=round(statistics.quantiles(took, n=100)[_PERCENT - 1] * 1000, 2),
        samples=pick(wrong, failed, told),
        heard=texts(failed),
        took=by_step(took),
        stuck=bool(hangs),
    )


INCIDENT: Final = Incident(
    name="read-only",
    headline="a session that may only read writes by mistake, 1 time in 20",
    play=play,
    measures=(
        Measure("extra", "sessions opened beyond the pool's size", is_fault=True),
        Measure("failed", "reads that failed", is_fault=True),
        Measure("wrong", "wrong results", is_fault=True),
        Measure("hangs", "hangs", is_fault=True),
        Measure("mistakes", "mistaken writes, told so"),
        Measure("sessions", "sessions opened"),
        Measure("slow_ms", "95 of 100 reads take less than", over="median", unit="ms"),
    ),
    trials_max=3,
)
