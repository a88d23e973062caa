"""A peer that falls silent: whom it keeps waiting, and how soon the pool is whole.

What makes it silent is the incident's: a proxy that acknowledges and never answers,
or a network that drops packets. One moment of a connection's life after the other is
played with an engine of its own: everybody who uses the pool makes the same call at
once, the peer having fallen silent just before.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from sqlalchemy import text

from poolproof.drill.calls import SLACK_S, Call, Control, all_at_once, join
from poolproof.drill.incident import Measure, Outcome
from poolproof.drill.traffic import pick

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy import Connection, Engine

    from poolproof.drill.proxy import Proxy
    from poolproof.drill.stage import Stage
    from poolproof.drill.target import Target

SIZE: Final = 8
"""Connections of the pool, and callers at each moment."""

CALL_S: Final = 0.4
"""The deadline of a ping, of a call and of a reset."""

CONNECT_S: Final = 2.0
"""The deadline of a whole checkout; psycopg cannot connect with a shorter one."""

WHOLE_S: Final = 1.0
"""Seconds after the peer's recovery within which every slot has to work again."""

PLAYS_MAX: Final = 3
"""How often a moment with late calls is played before they count."""

_OWN_WORK_S: Final = 0.3
"""pg8000 can bound each of its reads, and not what it does before the first."""

_PATIENCE_S: Final = 0.4
_FREED_S: Final = 3.0
_IDLE_S: Final = 0.05
_POOL_S: Final = 0.5
_RETRY_S: Final = 0.01
_ASK: Final = text("SELECT CAST(:token AS text)")


class Network(Protocol):
    """What lies between the pool and the server, and can fail."""

    @property
    def target(self) -> Target:
        """The database, reached through it."""

    def fail(self, *, newcomers: bool) -> None:
        """Fall silent; *newcomers* says whether towards new connections, too."""

    def mend(self, *, old: bool) -> None:
        """Work again for new connections, and for the *old* ones if told so."""

    def cut(self) -> None:
        """End every connection, so that nobody waits any longer."""


class Proxied:
    """A network with a proxy in it.

    Args:
        proxy: What passes everything on to the server.
        target: The database, reached through it.
    """

    def __init__(self, proxy: Proxy, target: Target) -> None:
        self.target = target
        self._proxy = proxy

    def cut(self) -> None:
        """End every connection, so that nobody waits any longer."""
        for link in self._proxy.links:
            link.cut()


@dataclass(frozen=True, slots=True, kw_only=True)
class OutageOutcome(Outcome):
    """What a silent peer did to those who called, over every moment."""

    calls: int
    overdue: int
    late_ms: float
    machine_ms: float
    wrong: int
    lost: int
    ghosts: int
    unusable: int
    whole_ms: float
    errors: int


MEASURES: Final = (
    Measure("overdue", "calls past their deadline", is_fault=True),
    Measure("unusable", "slots not usable 1 s after", is_fault=True),
    Measure("wrong", "wrong results", is_fault=True),
    Measure("lost", "lost rows", is_fault=True),
    Measure("ghosts", "uncommitted rows kept", is_fault=True),
    Measure("late_ms", "latest return past a deadline", over="worst", unit="ms"),
    Measure("machine_ms", "the machine's own lateness", over="worst", unit="ms"),
    Measure("whole_ms", "until the pool was whole", over="worst", unit="ms"),
    Measure("errors", "calls that failed"),
    Measure("calls", "calls"),
)
NOTE: Final = (
    "QueuePool has no deadline: the drill ends its calls, 0.4 s late or more, and its "
    "latest return and its usable slots come of that"
)


@dataclass(slots=True)
class Scene:
    """One moment: an engine, who calls, and what each came back with."""

    stage: Stage
    engine: Engine
    name: str
    size: int
    wrong: list[str] = field(default_factory=list)
    committed: list[str] = field(default_factory=list)
    never: list[str] = field(default_factory=list)
    opening_s: float = 0.0

    def token(self, n: int) -> str:
        """Return what the *n*th caller asks for, or the id of its row."""
        return f"{self.stage.tag}/{self.name}/{n}"

    def warm(self) -> None:
        """Open every connection of the pool, and give them back."""
        calls = [
            Call(self.engine.connect, CONNECT_S, lambda it: it.close())  # type: ignore[attr-defined]
            for _ in range(self.size)
        ]
        began = time.monotonic()
        all_at_once(calls, _PATIENCE_S)
        self.opening_s = time.monotonic() - began
        join(calls, _FREED_S)

    def held(self) -> list[tuple[str, Connection]]:
        """Check every connection out, each with a row written and not committed."""
        held = []
        for n in range(self.size):
            connection = self.engine.connect()
            connection.execute(self.stage.insert(), {"id": self.token(n)})
            held.append((self.token(n), connection))
        return held

    def ask(self, connection: Connection, token: str) -> None:
        """Ask for a token, and note an answer to another question."""
        rows = [tuple(row) for row in connection.execute(_ASK, {"token": token})]
        if rows != [(token,)]:
            self.wrong.append(f"{self.name}: asked for {token}, got {rows}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moment:
    """One moment, played."""

    calls: list[Call]
    overdue: int
    hung: int
    machine_s: float
    unusable: int
    whole_s: float
    stuck: bool

    @property
    def may_be_the_machine(self) -> bool:
        """Whether all came back by themselves, some later than the control explains.

        The control only sleeps, and a caller has an error to handle: a machine with no
        time for that makes it later still. What is late by nature is late again.
        """
        return not self.hung and bool(self.overdue or self.unusable)


def _ping(scene: Scene) -> list[Call]:
    """Idle connections are checked out: whatever looks at them gets no answer."""
    scene.warm()
    time.sleep(2 * _IDLE_S)
    limit_s = CALL_S + 2 * scene.opening_s  # a ping, then a new connection
    return [_checkout(scene, limit_s) for _ in range(scene.size)]


def _connect(scene: Scene) -> list[Call]:
    """The pool is empty, or was never used, and nobody answers at the door."""
    if scene.stage.trial % 2 == 0:
        scene.warm()
        scene.engine.dispose()
    own_s = _OWN_WORK_S if scene.stage.driver == "pg8000" else 0.0
    return [_checkout(scene, CONNECT_S + own_s) for _ in range(scene.size)]


def _checkout(scene: Scene, limit_s: float) -> Call:
    return Call(scene.engine.connect, limit_s, lambda it: it.close())  # type: ignore[attr-defined]


def _within(scene: Scene, work: Callable[[str, Connection], object]) -> Iterable[Call]:
    """Let each caller do its *work* within a deadline, and give its connection back."""

    def act(token: str, connection: Connection) -> None:
        try:
            with scene.stage.deadline(CALL_S):
                work(token, connection)
        finally:
            connection.close()

    for token, connection in scene.held():
        yield Call(lambda t=token, c=connection: act(t, c), CALL_S)  # type: ignore[misc]


def _execute(scene: Scene) -> list[Call]:
    """A query is not answered."""

    def work(token: str, connection: Connection) -> None:
        scene.never.append(token)
        scene.ask(connection, token)
        connection.rollback()

    return list(_within(scene, work))


def _commit(scene: Scene) -> list[Call]:
    """A COMMIT is not answered."""

    def work(token: str, connection: Connection) -> None:
        connection.commit()
        scene.committed.append(token)

    return list(_within(scene, work))


def _rollback(scene: Scene) -> list[Call]:
    """A ROLLBACK is not answered."""

    def work(token: str, connection: Connection) -> None:
        scene.never.append(token)
        connection.rollback()

    return list(_within(scene, work))


def _reset(scene: Scene) -> list[Call]:
    """The pool's own ROLLBACK at check-in is not answered; the caller only closes."""
    held = [scene.engine.raw_connection() for _ in range(scene.size)]
    for connection in held:
        connection.cursor().execute("SELECT 1")  # which begins a transaction
    return [Call(connection.close, CALL_S) for connection in held]


MOMENTS: Final[dict[str, Callable[[Scene], list[Call]]]] = {
    "ping": _ping,
    "execute": _execute,
    "commit": _commit,
    "rollback": _rollback,
    "reset": _reset,
    "connect": _connect,
}
"""Where a peer may fall silent."""


def suffer(
    stage: Stage,
    network: Network,
    *,
    incident: str,
    moments: Iterable[str],
    size: int = SIZE,
    newcomers_at_ping: bool,
) -> OutageOutcome:
    """Play each moment, and add up what came of them.

    Args:
        stage: The trial's stage; in every other trial the peer's recovery reaches
            the old connections as well, and delivers what it held back.
        network: What fails.
        incident: Its name.
        moments: Names of `MOMENTS`.
        size: Connections of the pool, and callers.
        newcomers_at_ping: Whether a new connection fails as well when a ping does.
    """
    scenes: list[Scene] = []
    counted: list[_Moment] = []
    for name in moments:
        newcomers = newcomers_at_ping or name != "ping"
        for attempt in range(PLAYS_MAX):
            scene = Scene(
                stage,
                _engine(stage, network, size),
                f"{incident}/{name}/{attempt}",
                size,
            )
            scenes.append(scene)
            moment = _play(scene, MOMENTS[name], network, newcomers=newcomers)
            if not moment.may_be_the_machine:
                break
        counted.append(moment)
        if moment.stuck:
            break
    return _sum(stage, counted, scenes)


def _play(
    scene: Scene,
    begin: Callable[[Scene], list[Call]],
    network: Network,
    *,
    newcomers: bool,
) -> _Moment:
    """Play one moment once.

    Args:
        scene: Its engine and its callers.
        begin: Makes the calls.
        network: What fails.
        newcomers: Whether new connections fail as well.
    """
    calls = begin(scene)
    if begin is _ping and newcomers:
        for call in calls:
            call.limit_s += CONNECT_S
    with Control() as control:
        network.fail(newcomers=newcomers)
        all_at_once(calls, _PATIENCE_S)
        hung = sum(not call.has_returned for call in calls)
        network.mend(old=scene.stage.trial % 2 == 0)
        usable, seconds, users = _until_whole(scene, control)
        for call in calls:
            call.freeze()
    network.cut()
    stuck = not join([*calls, *users], _FREED_S)
    if not stuck:
        scene.engine.dispose()
    return _Moment(
        calls=calls,
        overdue=sum(control.excess_s(call) > SLACK_S for call in calls),
        hung=hung,
        machine_s=max(map(control.late_s, calls)),
        unusable=scene.size - usable,
        whole_s=seconds,
        stuck=stuck,
    )


def _sum(stage: Stage, moments: list[_Moment], scenes: list[Scene]) -> OutageOutcome:
    """Add up what came of the moments.

    Args:
        stage: The trial's stage.
        moments: Whose lateness counts.
        scenes: Every one that was played: no row of any may be lost.
    """
    calls = [call for moment in moments for call in moment.calls]
    committed = [token for scene in scenes for token in scene.committed]
    never = [token for scene in scenes for token in scene.never]
    present = stage.present([*committed, *never])
    wrong = [answer for scene in scenes for answer in scene.wrong]
    complaints = [call.complaint for call in calls if call.error]
    return OutageOutcome(
        calls=len(calls),
        overdue=sum(moment.overdue for moment in moments),
        late_ms=round(max(call.late_s for call in calls) * 1000, 1),
        machine_ms=round(max(moment.machine_s for moment in moments) * 1000, 1),
        wrong=len(wrong),
        lost=sum(token not in present for token in committed),
        ghosts=sum(token in present for token in never),
        unusable=sum(moment.unusable for moment in moments),
        whole_ms=round(max(moment.whole_s for moment in moments) * 1000, 1),
        errors=len(complaints),
        samples=pick(wrong, complaints),
        stuck=any(moment.stuck for moment in moments),
    )


def _engine(stage: Stage, network: Network, size: int) -> Engine:
    """Make the engine of one moment."""
    return stage.engine(
        network.target,
        pool_size=size,
        max_overflow=0,
        pool_pre_ping=True,
        pool_timeout=_POOL_S,
        knobs={
            "ping_idle_after": _IDLE_S,
            "ping_timeout": CALL_S,
            "reset_timeout": CALL_S,
            "checkout_timeout": CONNECT_S,
        },
    )


def _until_whole(scene: Scene, control: Control) -> tuple[int, float, list[Call]]:
    """Let everybody hold a connection at the same time and ask, again and again.

    Args:
        scene: Whose pool is used.
        control: What it oversleeps meanwhile is no fault of the pool.

    Returns:
        How many could within `WHOLE_S`, seconds until the last of them, and who tried.
    """
    began = time.monotonic()
    over = threading.Event()
    served: list[float] = []

    def left_s() -> float:
        now = time.monotonic()
        return began + WHOLE_S + control.overslept_s(began, now) - now

    def use(n: int) -> None:
        while not over.is_set() and left_s() > 0:
            try:
                with scene.engine.connect() as connection:
                    scene.ask(connection, scene.token(n))
                    served.append(time.monotonic() - began)
                    while not over.is_set() and (rest_s := left_s()) > 0:
                        over.wait(rest_s)
                    return
            except Exception:  # noqa: BLE001 (it tries again, as a client would)
                time.sleep(_RETRY_S)

    users = [Call(lambda n=n: use(n), WHOLE_S) for n in range(scene.size)]  # type: ignore[misc]
    for user in users:
        user.start()
    while len(served) < scene.size and left_s() > 0:
        time.sleep(0.002)
    usable = len(served)
    over.set()
    return usable, max(served, default=WHOLE_S), users
