"""`stale-answer`: answers to nobody's question come while a connection is in use.

`corruption` poisons a connection that idles, which a look finds. Here the stray answer
arrives in the middle of somebody's work, at moments when no driver raises an error
that SQLAlchemy would ask about. That request is beyond help; what about the later ones?
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from poolproof.drill.incident import Incident, Measure, Outcome
from poolproof.drill.proxy import Link, Proxy
from poolproof.drill.stray import ANSWER, DONE
from poolproof.drill.traffic import pick, request, settle, warm
from poolproof.drill.troupe import Troupe

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Engine

    from poolproof.drill.player import Report
    from poolproof.drill.stage import Stage

LATER: Final = 10
_FREED_S: Final = 2.0
_ASK: Final = text("SELECT CAST(:token AS text)")


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleOutcome(Outcome):
    """What stray answers did to the requests after the one that they met."""

    wrong: int
    lost: int
    ghosts: int
    hangs: int
    failed: int
    surprised: int
    scenes: int


class _Victim:
    """The request that the stray answer meets, and the link that it comes on."""

    def __init__(self, stage: Stage, report: Report, link: Link, stray: bytes) -> None:
        self.link = link
        self.stray = stray
        self._stage = stage
        self._report = report

    def ask(self, connection: Connection) -> None:
        """Ask as an application does that expects just one row."""
        token = f"{self._stage.tag}/victim"
        answer = connection.execute(_ASK, {"token": token}).scalar_one()
        if answer != token:
            self._report.say("surprised", f"asked for {token}, got {answer!r}")

    def inject(self) -> None:
        """Let the stray answer arrive now."""
        self.link.wait_quiet()
        self.link.inject(self.stray)


def _before_a_query(victim: _Victim, connection: Connection) -> None:
    victim.ask(connection)
    victim.inject()
    victim.ask(connection)


def _before_its_answer(victim: _Victim, connection: Connection) -> None:
    victim.ask(connection)
    victim.link.precede(victim.stray)
    victim.ask(connection)


def _with_its_answer(victim: _Victim, connection: Connection) -> None:
    victim.ask(connection)
    victim.link.follow(victim.stray)
    victim.ask(connection)


def _before_commit(victim: _Victim, connection: Connection) -> None:
    victim.ask(connection)
    victim.inject()
    connection.commit()


def _with_commit(victim: _Victim, connection: Connection) -> None:
    victim.ask(connection)
    victim.link.follow(victim.stray)
    connection.commit()


def _before_check_in(victim: _Victim, connection: Connection) -> None:
    victim.ask(connection)
    connection.commit()
    victim.inject()


def _with_the_reset(victim: _Victim, connection: Connection) -> None:
    victim.ask(connection)
    victim.link.follow(victim.stray)


MOMENTS: Final[dict[str, Callable[[_Victim, Connection], None]]] = {
    "before a query": _before_a_query,
    "before its answer": _before_its_answer,
    "with its answer": _with_its_answer,
    "before commit": _before_commit,
    "with commit": _with_commit,
    "before check-in": _before_check_in,
    "with the reset": _with_the_reset,
}
"""When the stray answer comes."""

STRAYS: Final = {"a row": ANSWER, "no row": DONE}
"""What it says."""


def play(stage: Stage) -> StaleOutcome:
    """Try each answer at each moment, on a pool of one connection."""
    troupes: list[Troupe] = []
    for moment, meet in MOMENTS.items():
        for kind, stray in STRAYS.items():
            name = f"{moment}, {kind}"
            troupes.append(_scene(stage, name, meet, stray))
            if troupes[-1].has_stuck_thread:
                break
    players = [player for troupe in troupes for player in troupe.players]
    account = settle(stage, players)
    surprised = [answer for player in players for answer in player.values("surprised")]
    return StaleOutcome(
        wrong=account.wrong,
        lost=account.lost,
        ghosts=account.ghosts,
        hangs=sum(troupe.hangs for troupe in troupes),
        failed=account.errors,
        surprised=len(surprised),
        scenes=len(troupes),
        samples=(*account.samples, *pick(surprised)),
        heard=account.heard,
        took=account.took,
        stuck=any(troupe.has_stuck_thread for troupe in troupes),
    )


def _scene(
    stage: Stage,
    name: str,
    meet: Callable[[_Victim, Connection], None],
    stray: bytes,
) -> Troupe:
    """Play one moment: a victim, and ten requests after it."""
    with Proxy(stage.target.address()) as proxy:
        engine = stage.engine(
            stage.target.through(proxy.port),
            pool_size=1,
            max_overflow=0,
            pool_pre_ping=True,
        )
        warm(engine, 1)
        (link,) = proxy.links

        def act(report: Report) -> None:
            victim = _Victim(stage, report, link, stray)
            _meet(engine, victim, report, meet)
            report.say("met")
            for n in range(LATER):
                request(engine, stage, report, name.replace(" ", "-"), n)

        with Troupe(is_idle=stage.is_idle) as troupe:
            troupe.thread("client", act)
            troupe.watch()
            if troupe.hangs:  # what hangs waits for the proxy, which can end that
                for each in proxy.links:
                    each.cut()
                troupe.join(_FREED_S)
        if not troupe.has_stuck_thread:
            engine.dispose()
    return troupe


def _meet(
    engine: Engine,
    victim: _Victim,
    report: Report,
    meet: Callable[[_Victim, Connection], None],
) -> None:
    """Let the victim meet the stray answer; whatever it raises is its own matter."""
    try:
        with engine.connect() as connection:
            meet(victim, connection)
    except Exception as error:  # noqa: BLE001 (as an application's own handler)
        report.say("surprised", f"{type(error).__name__}: {error}".splitlines()[0])


INCIDENT: Final = Incident(
    name="stale-answer",
    headline="a stray answer meets a request; ten others come after it",
    play=play,
    measures=(
        Measure("wrong", "later wrong results", is_fault=True),
        Measure("lost", "lost commits", is_fault=True),
        Measure("ghosts", "uncommitted rows kept", is_fault=True),
        Measure("hangs", "hangs", is_fault=True),
        Measure("failed", "later requests that failed", is_harm=True),
        Measure("surprised", "requests that it met, and saw it"),
        Measure("scenes", "stray answers"),
    ),
    batch=2,
    trials_max=6,
    uses_proxy=True,
)
