"""`corruption`: bytes that nobody asked for lie in a pooled connection's socket.

A proxy puts them there while the connection is idle, as a fork, a timed-out query or
a broken pooler does. What does it cost the requests that come after?
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from poolproof.drill.errors import SetupError
from poolproof.drill.incident import HARM, Incident, Measure
from poolproof.drill.incidents.served import Served, count
from poolproof.drill.proxy import Proxy
from poolproof.drill.stray import ANSWER, ROW
from poolproof.drill.traffic import request, settle
from poolproof.drill.troupe import Troupe

if TYPE_CHECKING:
    from poolproof.drill.player import Report
    from poolproof.drill.stage import Stage

SIZE: Final = 2
REQUESTS: Final = 20
_FREED_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CorruptionOutcome(Served):
    """What one poisoned connection cost the requests after it."""

    failed: int


STRAYS: Final[dict[str, bytes]] = {
    "answer": ANSWER,
    "row": ROW,
    "half a row": ROW[: len(ROW) // 2],
    "noise": bytes(range(128, 160)),
}
"""What the trials inject, in turn."""


def play(stage: Stage) -> CorruptionOutcome:
    """Poison one of two idle pooled connections, then serve twenty requests."""
    kind = list(STRAYS)[stage.trial % len(STRAYS)]
    with (
        Proxy(stage.target.address()) as proxy,
        Troupe(is_idle=stage.is_idle) as troupe,
    ):
        engine = stage.engine(
            stage.target.through(proxy.port), pool_size=SIZE, max_overflow=0
        )
        for connection in [engine.connect() for _ in range(SIZE)]:
            connection.close()
        victim = stage.rng.choice(proxy.links)
        if not victim.wait_quiet():
            raise SetupError("an idle pooled connection does not come to rest")
        victim.inject(STRAYS[kind])

        def act(report: Report) -> None:
            for n in range(REQUESTS):
                request(engine, stage, report, kind.replace(" ", "-"), n)

        troupe.thread("client", act)
        troupe.watch()
        if troupe.hangs:  # what hangs waits for the proxy, which can end that
            for link in proxy.links:
                link.cut()
            troupe.join(_FREED_S)
        account = settle(stage, troupe.players)
    samples = tuple(f"{kind}: {sample}" for sample in account.samples)
    return CorruptionOutcome(
        **count(account, troupe) | {"samples": samples},
        failed=account.errors,
    )


INCIDENT: Final = Incident(
    name="corruption",
    headline="stray bytes in one pooled connection, twenty requests after",
    play=play,
    measures=(
        *HARM,
        Measure("failed", "later requests that failed", is_harm=True),
    ),
    batch=9,
    quick=4,
    uses_proxy=True,
)
