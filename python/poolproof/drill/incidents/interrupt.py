"""`interrupt`: an exception out of a signal handler hits a request in mid-query.

Celery's soft time limit is one: its handler for SIGUSR1 raises in the worker's main
thread, wherever that is just then. Ctrl-C is another. What the driver had not read
yet is still on its way; who gets it?
"""

from __future__ import annotations

import signal
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from poolproof.drill.incident import Incident, Measure, Outcome
from poolproof.drill.player import first_line
from poolproof.drill.traffic import pick, request, settle
from poolproof.drill.troupe import Troupe

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from poolproof.drill.player import Report
    from poolproof.drill.stage import Stage

SIZE: Final = 2
ROUNDS: Final = 12
LATER: Final = 3
QUERY_S: Final = 0.03
_LOOK_S: Final = 0.002
_SLOW: Final = text("SELECT CAST(:token AS text), pg_sleep(:s)")


class SoftTimeLimitExceeded(Exception):  # noqa: N818 (its name in Celery)
    """As Celery's: an ordinary Exception, raised by a signal handler."""


_KINDS: Final = (SoftTimeLimitExceeded, SoftTimeLimitExceeded, KeyboardInterrupt)


@dataclass(frozen=True, slots=True, kw_only=True)
class InterruptOutcome(Outcome):
    """What interrupted requests did to the later ones."""

    interrupted: int
    masked: int
    failed: int
    wrong: int
    lost: int
    ghosts: int
    hangs: int


def play(stage: Stage) -> InterruptOutcome:
    """Interrupt a dozen requests, each followed by three that are left alone."""
    moments = [stage.rng.uniform(0.0, 1.4) * QUERY_S for _ in range(ROUNDS)]
    with Troupe(is_idle=stage.is_idle) as troupe:
        # In a process of its own: signals are for main threads.
        worker = troupe.fork("worker", _work(stage, moments))
        troupe.watch()
    account = settle(stage, [worker])
    return InterruptOutcome(
        interrupted=len(worker.values("interrupted")),
        masked=len(worker.values("masked")),
        failed=account.errors,
        wrong=account.wrong,
        lost=account.lost,
        ghosts=account.ghosts,
        hangs=troupe.hangs,
        samples=(*account.samples, *pick(worker.values("masked"))),
        heard=account.heard,
        took=account.took,
    )


def _work(stage: Stage, moments: list[float]) -> Callable[[Report], None]:
    """Return the worker: rounds of one request that is hit, and some that are not."""

    def act(report: Report) -> None:
        engine = stage.engine(pool_size=SIZE, max_overflow=0, pool_pre_ping=True)
        for n, moment in enumerate(moments):
            token = f"{stage.tag}/hit/{n}"
            hit = _Signal(_KINDS[n % len(_KINDS)], moment)
            _serve(engine, stage, report, token, hit)
            for later in range(LATER):
                request(engine, stage, report, f"later/{n}", later)

    return act


class _Signal:
    """A signal to this process's main thread in so many seconds; it raises there."""

    def __init__(self, kind: type[BaseException], after_s: float) -> None:
        self.has_come = False
        self._kind = kind
        main = threading.main_thread().ident or 0
        self._timer = threading.Timer(
            after_s, lambda: signal.pthread_kill(main, signal.SIGUSR1)
        )

    def start(self) -> None:
        """Let the time run."""
        signal.signal(signal.SIGUSR1, self._raise)
        self._timer.start()

    def _raise(self, *_: Any) -> None:
        self.has_come = True
        raise self._kind

    def wait(self) -> None:
        """Wait until it has come, so that it hits nobody later."""
        self._timer.join()
        while not self.has_come:
            time.sleep(_LOOK_S)


def _serve(
    engine: Engine, stage: Stage, report: Report, token: str, hit: _Signal
) -> None:
    """Serve a slow request that is hit somewhere."""
    intent = "never"
    try:
        try:
            hit.start()
            with engine.connect() as connection:
                rows = connection.execute(_SLOW, {"token": token, "s": QUERY_S}).all()
                if [row[0] for row in rows] != [token]:
                    report.say("wrong", f"asked for {token}, got {rows}")
                connection.execute(stage.insert(), {"id": token})
                intent = "unknown"
                connection.commit()
                intent = "committed"
        except Exception as error:
            if isinstance(error, SoftTimeLimitExceeded):
                raise
            # A driver's own error in the place of the exception, or one without cause.
            if hit.has_come:
                report.say("masked", first_line(error))
            else:
                report.error(error)
        hit.wait()
    except (SoftTimeLimitExceeded, KeyboardInterrupt):
        report.say("interrupted")
    report.say(intent, token)


INCIDENT: Final = Incident(
    name="interrupt",
    headline="a soft time limit, or Ctrl-C, raises in mid-query",
    play=play,
    measures=(
        Measure("failed", "later requests that failed", is_fault=True),
        Measure("wrong", "wrong results", is_fault=True),
        Measure("lost", "lost commits", is_fault=True),
        Measure("ghosts", "uncommitted rows kept", is_fault=True),
        Measure("hangs", "hangs", is_fault=True),
        Measure("interrupted", "requests interrupted, on purpose"),
        Measure("masked", "interruptions masked by an error"),
    ),
    batch=5,
    trials_max=15,
)
