"""`held-at-fork`: a connection is in use when the service forks.

The parent has written rows and not yet committed. Its child gets a copy of the
connection and does with it what circulates as advice, or nothing but let go of it.
Then the parent commits. Are its rows there?
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from poolproof.drill.incident import Incident, Measure, Outcome
from poolproof.drill.traffic import pick, texts
from poolproof.drill.troupe import Troupe

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Engine

    from poolproof.drill.player import Player, Report
    from poolproof.drill.stage import Stage

ROWS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutcome(Outcome):
    """What came of one held connection, over everything that a child may do."""

    lost: int
    hangs: int
    parent_errors: int
    child_errors: int
    child_lines: int


def _close(_engine: Engine, held: list[Connection]) -> None:
    held[0].close()


def _drop(_engine: Engine, held: list[Connection]) -> None:
    held.clear()
    gc.collect()


def _invalidate(_engine: Engine, held: list[Connection]) -> None:
    held[0].invalidate()


def _dispose(engine: Engine, held: list[Connection]) -> None:
    engine.dispose()
    _drop(engine, held)


def _dispose_gently(engine: Engine, held: list[Connection]) -> None:
    engine.dispose(close=False)
    _drop(engine, held)


ACTS: Final[dict[str, Callable[[Engine, list[Connection]], None]]] = {
    "close": _close,
    "drop": _drop,
    "invalidate": _invalidate,
    "dispose": _dispose,
    "dispose(close=False)": _dispose_gently,
}
"""What a child does to the connection, each tried once in a trial."""


def play(stage: Stage) -> HeldOutcome:
    """Try each act of a child on a parent's transaction of its own."""
    names = list(ACTS)
    stage.rng.shuffle(names)
    troupes: list[Troupe] = []
    lost = 0
    for name in names:
        lost += _try(stage, name, troupes)
        if troupes[-1].has_stuck_thread:
            break
    parents = [p for troupe in troupes for p in troupe.players if p.pid is None]
    children = [p for troupe in troupes for p in troupe.players if p.pid is not None]
    lines = [line for child in children for line in _lines(child)]
    return HeldOutcome(
        lost=lost,
        hangs=sum(troupe.hangs for troupe in troupes),
        parent_errors=sum(len(p.values("error")) for p in parents),
        child_errors=sum(len(p.values("error")) for p in children),
        child_lines=len(lines),
        samples=pick(
            [e for p in parents for e in p.values("error")],
            [e for p in children for e in p.values("error")],
            lines,
        ),
        heard=texts([e for p in parents for e in p.values("error")]),
        stuck=any(troupe.has_stuck_thread for troupe in troupes),
    )


def _try(stage: Stage, name: str, troupes: list[Troupe]) -> int:
    """Play one act; return how many rows of a reported commit are missing.

    The child is done before the parent goes on. Both troupes are added to *troupes*.
    """
    engine = stage.engine()
    idle, working = engine.connect(), engine.connect()
    idle.close()
    held = [working]
    del idle, working
    ids = [f"{stage.tag}/{name}/{n}" for n in range(ROWS + 1)]
    for row in ids[:ROWS]:
        held[0].execute(stage.insert(), {"id": row})

    def child(report: Report) -> None:
        ACTS[name](engine, held)
        report.say("done")

    def parent(report: Report) -> None:
        held[0].execute(stage.insert(), {"id": ids[ROWS]})
        held[0].commit()
        report.say("committed")
        held[0].close()
        for _ in range(2):  # what lay idle in the pool must still be good
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))

    with Troupe(is_idle=stage.is_idle) as before:
        before.fork(name, child, hear_stderr=True)
        before.watch()
    with Troupe(is_idle=stage.is_idle) as after:
        teller = after.thread("parent", parent)
        after.watch()
    troupes += [before, after]
    if not after.has_stuck_thread:
        engine.dispose()
    if not teller.values("committed"):
        return 0
    return len(set(ids) - stage.present(ids))


def _lines(player: Player) -> list[str]:
    """Return what a child wrote to standard error, line by line."""
    return player.stderr.decode(errors="replace").splitlines()


INCIDENT: Final = Incident(
    name="held-at-fork",
    headline="a child lets go of a connection that its parent is using",
    play=play,
    measures=(
        Measure("lost", "lost rows", is_fault=True),
        Measure("hangs", "hangs", is_fault=True),
        Measure("parent_errors", "errors in the parent", is_harm=True),
        Measure("child_errors", "errors in the child"),
        Measure("child_lines", "log lines in the child"),
    ),
    batch=9,
)
