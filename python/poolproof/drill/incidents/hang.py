"""`hang`: the peer acknowledges every byte, and answers nothing.

A stalled virtual machine, a stuck pooler, a frozen disk: to TCP all is well, so no
keep-alive and no ``connect_timeout`` notices. Who asks now, waits for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poolproof.drill.incident import Incident
from poolproof.drill.incidents.outage import (
    MEASURES,
    NOTE,
    OutageOutcome,
    Proxied,
    suffer,
)
from poolproof.drill.moments import MOMENTS
from poolproof.drill.proxy import Proxy

if TYPE_CHECKING:
    from poolproof.drill.stage import Stage


class Stalling(Proxied):
    """The network: a proxy that can stall."""

    def fail(self, *, newcomers: bool) -> None:
        """Acknowledge, and answer nothing."""
        self._proxy.stall(newcomers=newcomers)

    def mend(self, *, old: bool) -> None:
        """Answer again."""
        self._proxy.resume(old=old)


def play(stage: Stage) -> OutageOutcome:
    """Stall the proxy at each moment in turn, with eight callers each time."""
    with Proxy(stage.target.address()) as proxy:
        return suffer(
            stage,
            Stalling(proxy, stage.target.through(proxy.port)),
            incident="hang",
            moments=MOMENTS,
            newcomers_at_ping=False,
        )


INCIDENT: Final = Incident(
    name="hang",
    headline="the peer acknowledges and never answers, at six moments",
    play=play,
    measures=MEASURES,
    note=NOTE,
    place="quiet",
    trials_max=2,
    bound_s=90.0,
    uses_proxy=True,
)
