"""`refused`: for a while nobody listens where the server was.

A server that is down refuses within milliseconds, so a service can say so as quickly.
How long do its callers wait for their error, and how often is the server tried?
"""

from __future__ import annotations

import socket
import statistics
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event, text
from sqlalchemy.exc import SQLAlchemyError

from poolproof.drill.calls import Control
from poolproof.drill.incident import Incident, Measure, Outcome
from poolproof.drill.latency import by_step
from poolproof.drill.player import first_line
from poolproof.drill.proxy import Proxy
from poolproof.drill.traffic import pick, texts, warm

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from poolproof.drill.stage import Stage

CALLERS: Final = 20
SLOTS: Final = 5
PROMPT_S: Final = 0.5
"""Within which a caller has to hear that nobody listens, beyond the machine's own."""

_AWAY_S: Final = 3.0
_FULL_S: Final = 20.0
_PAUSE_S: Final = 0.1
_BACK_S: Final = 10.0
_ASK: Final = text("SELECT 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedOutcome(Outcome):
    """What callers were told while nobody listened, and when."""

    kept: int
    hangs: int
    answers: int
    half_ms: float
    longest_ms: float
    knocks: int
    back_ms: float


@dataclass(slots=True)
class _Refusal:
    """The callers of a server that goes away and comes back."""

    engine: Engine
    over: threading.Event = field(default_factory=threading.Event)
    gone_at: float = 0.0
    back_at: float = 0.0
    calls: list[tuple[float, float, str]] = field(default_factory=list)
    served_at: dict[int, float] = field(default_factory=dict)
    knocks: int = 0

    def call(self, n: int) -> None:
        """Ask again and again until served after the server's return."""
        while not self.over.is_set():
            began = time.monotonic()
            complaint = ""
            try:
                with self.engine.connect() as connection:
                    connection.execute(_ASK)
            except SQLAlchemyError as error:
                complaint = first_line(error)
            ended = time.monotonic()
            self.calls.append((began, ended, complaint))
            if not complaint and self.back_at and ended > self.back_at:
                self.served_at[n] = ended
                return
            self.over.wait(_PAUSE_S)

    def knock(self, *_: Any) -> None:
        """Count an attempt to connect while nobody listens."""
        self.knocks += bool(self.gone_at and not self.back_at)


def play(stage: Stage) -> RefusedOutcome:
    """Take the server away from twenty callers, and bring it back."""
    away_s = _FULL_S if stage.full else _AWAY_S
    before = Proxy(stage.target.address()).start()
    engine = stage.engine(
        stage.target.through(before.port), pool_size=SLOTS, pool_pre_ping=True
    )
    scene = _Refusal(engine)
    event.listen(engine, "do_connect", scene.knock)
    try:
        warm(engine, SLOTS)
        callers = [
            threading.Thread(target=scene.call, args=(n,), daemon=True)
            for n in range(CALLERS)
        ]
        with Control() as control:
            port = before.port
            before.stop()
            with _nobody_listens(port) as door:
                scene.gone_at = time.monotonic()
                for caller in callers:
                    caller.start()
                time.sleep(away_s)
                door.listen()
                scene.back_at = time.monotonic()
                with Proxy(stage.target.address(), door.dup()):
                    _await(callers, scene.back_at + _BACK_S)
                    scene.over.set()
                    _await(callers, time.monotonic() + _BACK_S)
    finally:
        before.stop()
    hangs = sum(caller.is_alive() for caller in callers)
    if not hangs:
        engine.dispose()
    return _count(scene, control, hangs)


def _nobody_listens(port: int) -> socket.socket:
    """Take a port so that nobody else can have it, and connecting to it is refused."""
    door = socket.socket()
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    door.bind(("127.0.0.1", port))
    return door


def _await(callers: list[threading.Thread], until: float) -> None:
    """Wait for the callers, no longer than until an instant."""
    for caller in callers:
        caller.join(max(0.0, until - time.monotonic()))


def _count(scene: _Refusal, control: Control, hangs: int) -> RefusedOutcome:
    """Put together what those were told who called while nobody listened."""
    waits = [
        ended - began - control.overslept_s(began, ended)
        for began, ended, _ in scene.calls
        if began < scene.back_at
    ]
    errors = [complaint for _, _, complaint in scene.calls if complaint]
    last = max(scene.served_at.values(), default=scene.back_at + _BACK_S)
    return RefusedOutcome(
        kept=sum(seconds > PROMPT_S for seconds in waits),
        hangs=hangs,
        answers=len(errors),
        half_ms=round(statistics.median(waits) * 1000, 1) if waits else 0.0,
        longest_ms=round(max(waits, default=0.0) * 1000, 1),
        knocks=scene.knocks,
        back_ms=round((last - scene.back_at) * 1000, 1),
        samples=pick(errors),
        heard=texts(errors),
        took=by_step(ended - began for began, ended, _ in scene.calls),
        stuck=bool(hangs),
    )


INCIDENT: Final = Incident(
    name="refused",
    headline="nobody listens where the server was, and then it is back",
    play=play,
    measures=(
        Measure("kept", "callers kept from their error", is_fault=True),
        Measure("hangs", "hangs", is_fault=True),
        Measure("half_ms", "half of them wait less than", over="worst", unit="ms"),
        Measure("longest_ms", "longest wait", over="worst", unit="ms"),
        Measure("answers", "errors told", more_is_right=True),
        Measure("knocks", "connects while nobody listened"),
        Measure("back_ms", "until all were served again", over="worst", unit="ms"),
    ),
    trials_max=2,
    bound_s=90.0,
    uses_proxy=True,
)
