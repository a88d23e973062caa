"""`terminate`: somebody ends a few sessions with ``pg_terminate_backend``.

An administrator, a ``idle_in_transaction_session_timeout``, a cleaning script. First
idle sessions are ended, then a busy one. Who else has to pay for that?
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from poolproof.drill.errors import SetupError
from poolproof.drill.incident import Incident, Measure, Outcome
from poolproof.drill.traffic import request, settle, warm
from poolproof.drill.troupe import Troupe

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Engine

    from poolproof.drill.player import Report
    from poolproof.drill.stage import Stage

SIZE: Final = 6
IDLE: Final = 2
REQUESTS: Final = 12
_SETTLED_S: Final = 5.0
_BUSY_S: Final = 20
_LOOK_S: Final = 0.005
_PID: Final = text("SELECT pg_backend_pid()")
_SESSIONS: Final = text(
    "SELECT pid FROM pg_stat_activity WHERE application_name = :tag"
)
# Not with a timeout: the server then waits until no process has the number, and by its
# next look another one may.
_END: Final = text(
    "SELECT backend_start, pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE pid = :pid"
)
_IS_THERE: Final = text(
    "SELECT count(*) FROM pg_stat_activity WHERE pid = :pid AND backend_start = :began"
)
_ACTIVE: Final = text(
    "SELECT count(*) FROM pg_stat_activity WHERE pid = :pid AND state = 'active'"
    " AND wait_event = 'PgSleep'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminateOutcome(Outcome):
    """What three ended sessions cost the others."""

    failed: int
    innocent: int
    wrong: int
    lost: int
    ghosts: int
    hangs: int
    victims: int


class _Scene:
    """The pool, and the one who ends sessions of it."""

    def __init__(self, stage: Stage, engine: Engine, witness: Connection) -> None:
        self.stage = stage
        self.engine = engine
        self._witness = witness
        self.ended: set[int] = set()

    def sessions(self) -> set[int]:
        """Return the backends of the pool's connections."""
        pids = self._witness.execute(_SESSIONS, {"tag": self.stage.tag}).scalars()
        return set(pids)

    def end(self, pid: int) -> None:
        """End a session; it is gone when this returns."""
        ended = self._witness.execute(_END, {"pid": pid}).one_or_none()
        if ended is None or not ended[1]:
            raise SetupError(f"the backend {pid} is not there to be ended")
        deadline = time.monotonic() + _SETTLED_S
        which = {"pid": pid, "began": ended[0]}
        while self._witness.execute(_IS_THERE, which).scalar_one():
            if time.monotonic() > deadline:
                raise SetupError(f"the backend {pid} does not end")
            time.sleep(_LOOK_S)
        self.ended.add(pid)

    def wait_active(self, pid: int) -> None:
        """Wait until a session is in the middle of its query."""
        deadline = time.monotonic() + _SETTLED_S
        while not self._witness.execute(_ACTIVE, {"pid": pid}).scalar_one():
            if time.monotonic() > deadline:
                raise SetupError(f"the backend {pid} does not begin its query")
            time.sleep(_LOOK_S)

    def clients(self, name: str) -> Troupe:
        """Let some clients make requests, one after another, and wait for them."""

        def act(report: Report) -> None:
            for n in range(REQUESTS):
                request(self.engine, self.stage, report, name, n)

        return _watch(self.stage, act)

    def busy(self) -> int:
        """End a session in the middle of a query; return how many clients it cost."""
        begun = threading.Event()
        pids: list[int] = []

        def act(report: Report) -> None:
            with self.engine.connect() as connection:
                pids.append(connection.execute(_PID).scalar_one())
                begun.set()
                report.say("connected")
                connection.execute(text(f"SELECT pg_sleep({_BUSY_S})"))

        def end(_report: Report) -> None:
            begun.wait(_SETTLED_S)
            self.wait_active(pids[0])
            self.end(pids[0])

        with Troupe() as troupe:
            victim = troupe.thread("victim", act)
            troupe.thread("administrator", end)
            troupe.watch()
        return len(victim.values("error"))


def _watch(stage: Stage, act: Callable[[Report], object]) -> Troupe:
    """Play one client to its end."""
    with Troupe(is_idle=stage.is_idle) as troupe:
        troupe.thread("client", act)
        troupe.watch()
    return troupe


def play(stage: Stage) -> TerminateOutcome:
    """End two idle sessions and a busy one, with requests after each."""
    engine = stage.engine(pool_size=SIZE, max_overflow=0, pool_pre_ping=True)
    warm(engine, SIZE)
    with (
        stage.witness()
        .execution_options(isolation_level="AUTOCOMMIT")
        .connect() as witness
    ):
        scene = _Scene(stage, engine, witness)
        before = scene.sessions()
        for pid in stage.rng.sample(sorted(before), IDLE):
            scene.end(pid)
        troupes = [scene.clients("after-idle")]
        victims = 0
        if not troupes[0].has_stuck_thread:
            victims = scene.busy()
            troupes.append(scene.clients("after-busy"))
        innocent = len(before - scene.ended - scene.sessions())
    account = settle(stage, [p for troupe in troupes for p in troupe.players])
    stuck = any(troupe.has_stuck_thread for troupe in troupes)
    if not stuck:
        engine.dispose()
    return TerminateOutcome(
        failed=account.errors,
        innocent=innocent,
        wrong=account.wrong,
        lost=account.lost,
        ghosts=account.ghosts,
        hangs=sum(troupe.hangs for troupe in troupes),
        victims=victims,
        samples=account.samples,
        heard=account.heard,
        took=account.took,
        stuck=stuck,
    )


INCIDENT: Final = Incident(
    name="terminate",
    headline="two idle sessions and a busy one are ended",
    play=play,
    measures=(
        Measure("failed", "later requests that failed", is_fault=True),
        Measure("innocent", "other sessions given up", is_fault=True),
        Measure("wrong", "wrong results", is_fault=True),
        Measure("lost", "lost commits", is_fault=True),
        Measure("ghosts", "uncommitted rows kept", is_fault=True),
        Measure("hangs", "hangs", is_fault=True),
        Measure("victims", "queries that were ended"),
    ),
    batch=5,
    quick=2,
    trials_max=10,
)
