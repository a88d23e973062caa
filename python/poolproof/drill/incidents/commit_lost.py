"""`commit-lost`: the connection breaks in the middle of a commit.

Either the COMMIT is lost, or the answer to it: to the client that looks the same. With
`QueuePool` the work is repeated as most applications do, after any error of the
database; with `poolproof.Pool` it is left to `run_transaction`.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from poolproof.drill.incident import Incident, Measure, Outcome
from poolproof.drill.proxy import Proxy
from poolproof.drill.stage import checked
from poolproof.drill.traffic import pick, texts

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Engine

    from poolproof.drill.stage import Stage

UNITS: Final = 12
_ATTEMPTS: Final = 4
_WAYS: Final = ("well", "commit", "answer")
_DONE_S: Final = 5.0
_LOOK_S: Final = 0.002
_ANSWER: Final = b"COMMIT"  # what the server says when it has committed


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitLostOutcome(Outcome):
    """What became of units of work whose commit was cut off."""

    units: int
    twice: int
    lost: int
    failed: int
    attempts: int


class _Units:
    """Units of work, one after another, some of which lose their commit."""

    def __init__(self, stage: Stage, engine: Engine, proxy: Proxy) -> None:
        self.calls = 0
        self._stage = stage
        self._engine = engine
        self._proxy = proxy
        self._way = "well"
        self._unit = ""
        self._cutters: list[threading.Thread] = []
        event.listen(engine, "commit", self._break)

    def run(self, unit: str, way: str) -> str | None:
        """Do one unit; return what the caller was told, None for success."""
        self._unit, self._way = unit, way
        try:
            _repeating(self._stage, self._engine, self._work)
        except SQLAlchemyError as error:
            return f"{way}: {type(error).__name__}: {str(error).splitlines()[0]}"
        return None

    def _work(self, connection: Connection) -> None:
        """Write a row of this very attempt."""
        self.calls += 1
        row = f"{self._unit}/{self.calls}"
        connection.execute(self._stage.insert(), {"id": row})

    def rows(self, unit: str) -> int:
        """Count how often a unit was done."""
        table = checked(self._stage.table)
        query = text(f"SELECT count(*) FROM {table} WHERE starts_with(id, :unit)")  # noqa: S608 (the name is checked)
        with self._stage.witness().connect() as connection:
            return int(connection.execute(query, {"unit": f"{unit}/"}).scalar_one())

    def _break(self, _connection: Any) -> None:
        """Lose the commit that is about to be sent, or the answer to it, once."""
        way, self._way = self._way, "well"
        if way == "well":
            return
        link = [one for one in self._proxy.links if one.alive][-1]
        if way == "commit":
            link.stall_questions()
        else:
            link.stall_answers(_ANSWER)

        def cut() -> None:
            end = time.monotonic() + (_DONE_S if way == "answer" else 0)
            while time.monotonic() < end and not self.rows(self._unit):
                time.sleep(_LOOK_S)
            link.cut()

        self._cutters.append(threading.Thread(target=cut, daemon=True))
        self._cutters[-1].start()

    def join(self) -> None:
        """Wait for those who cut connections."""
        for cutter in self._cutters:
            cutter.join(_DONE_S)


def _repeating(
    stage: Stage, engine: Engine, work: Callable[[Connection], None]
) -> None:
    """Do a unit of work, and repeat it as the pool's users do."""
    if stage.pool == "poolproof":
        import poolproof  # noqa: PLC0415 (QueuePool's trials go without)

        poolproof.run_transaction(engine, work, attempts=_ATTEMPTS, verify_commit=True)
        return
    for left in reversed(range(_ATTEMPTS)):
        try:
            with engine.begin() as connection:
                work(connection)
            return  # noqa: TRY300 (after the commit)
        except DBAPIError:
            if not left:
                raise


def play(stage: Stage) -> CommitLostOutcome:
    """Do a dozen units of work, and count how often each was done."""
    with Proxy(stage.target.address()) as proxy:
        engine = stage.engine(
            stage.target.through(proxy.port),
            pool_size=1,
            max_overflow=0,
            pool_pre_ping=True,
        )
        units = _Units(stage, engine, proxy)
        names = [f"{stage.tag}/{n}" for n in range(UNITS)]
        told = {name: units.run(name, stage.rng.choice(_WAYS)) for name in names}
        units.join()
        engine.dispose()
    done = {name: units.rows(name) for name in names}
    errors = [error for error in told.values() if error is not None]
    return CommitLostOutcome(
        units=UNITS,
        twice=sum(count > 1 for count in done.values()),
        lost=sum(told[name] is None and not done[name] for name in names),
        failed=len(errors),
        attempts=units.calls,
        samples=pick(errors),
        heard=texts(error.partition(": ")[2] for error in errors),
    )


INCIDENT: Final = Incident(
    name="commit-lost",
    headline="commits, or the answers to them, are lost, and the work is repeated",
    play=play,
    measures=(
        Measure("twice", "units done more than once", is_fault=True),
        Measure("lost", "lost commits", is_fault=True),
        Measure("failed", "units that failed", is_fault=True),
        Measure("units", "units of work"),
        Measure("attempts", "attempts"),
    ),
    batch=3,
    trials_max=6,
    uses_proxy=True,
)
