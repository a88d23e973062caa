"""A peer that falls silent: whom it keeps waiting, and how soon the pool is whole.

What makes it silent is the incident's: a proxy that acknowledges and never answers,
or a network that drops packets. One moment of a connection's life after the other is
played with an engine of its own: everybody who uses the pool makes the same call at
once, the peer having fallen silent just before.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from poolproof.drill.calls import SLACK_S, Call, Control, all_at_once, join
from poolproof.drill.incident import Measure, Outcome
from poolproof.drill.latency import by_step
from poolproof.drill.moments import (
    CALL_S,
    CONNECT_S,
    FREED_S,
    IDLE_S,
    MOMENTS,
    PATIENCE_S,
    SIZE,
    Scene,
)
from poolproof.drill.pace import slowness
from poolproof.drill.traffic import pick, texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy import Engine

    from poolproof.drill.proxy import Proxy
    from poolproof.drill.stage import Stage
    from poolproof.drill.target import Target

WHOLE_S: Final = 1.0
"""Seconds after the peer's recovery within which every slot has to work again."""

PLAYS_MAX: Final = 3
"""How often a moment with late calls is played before they count."""

_POOL_S: Final = 0.5
_RETRY_S: Final = 0.01


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
    Measure("overdue", "calls past their deadline", is_fault=True, by_drill=True),
    Measure("unusable", "slots not usable 1 s after", is_fault=True, by_drill=True),
    Measure("wrong", "wrong results", is_fault=True),
    Measure("lost", "lost rows", is_fault=True),
    Measure("ghosts", "uncommitted rows kept", is_fault=True),
    Measure("late_ms", "latest return past a deadline", over="worst", unit="ms"),
    Measure("machine_ms", "the machine's own lateness", over="worst", unit="ms"),
    Measure("whole_ms", "until the pool was whole", over="worst", unit="ms"),
    Measure("errors", "calls that failed, as they must", more_is_right=True),
    Measure("calls", "calls"),
)
NOTE: Final = (
    "QueuePool has no deadline: the drill ends its calls, 0.4 s late or more, and its "
    "latest return and its usable slots come of that"
)


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
    if begin is MOMENTS["ping"] and newcomers:
        for call in calls:
            call.limit_s += CONNECT_S
    with Control() as control:
        network.fail(newcomers=newcomers)
        all_at_once(calls, PATIENCE_S)
        hung = sum(not call.has_returned for call in calls)
        network.mend(old=scene.stage.trial % 2 == 0)
        usable, seconds, users = _until_whole(scene, control)
        for call in calls:
            call.freeze()
    network.cut()
    stuck = not join([*calls, *users], FREED_S)
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
        heard=texts(complaints),
        took=by_step(call.took_s for call in calls),
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
            "ping_idle_after": IDLE_S,
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
        How many could within `WHOLE_S` of a machine at rest, seconds until the last of
        them, and who tried.
    """
    whole_s = WHOLE_S * slowness()  # each of them opens a connection, which is work
    began = time.monotonic()
    over = threading.Event()
    served: list[float] = []

    def left_s() -> float:
        now = time.monotonic()
        return began + whole_s + control.overslept_s(began, now) - now

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

    users = [Call(lambda n=n: use(n), whole_s) for n in range(scene.size)]  # type: ignore[misc]
    for user in users:
        user.start()
    while len(served) < scene.size and left_s() > 0:
        time.sleep(0.002)
    usable = len(served)
    over.set()
    return usable, max(served, default=whole_s), users
