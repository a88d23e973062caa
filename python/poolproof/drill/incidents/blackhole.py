"""`blackhole`: between the pool and its server, every packet is lost.

A cable, a firewall that forgot, a host that is gone: nobody says goodbye, so a
connection looks alive for as long as nothing is asked of it, and much longer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poolproof.drill import namespace
from poolproof.drill.incident import Incident
from poolproof.drill.incidents.outage import (
    MEASURES,
    NOTE,
    OutageOutcome,
    Proxied,
    suffer,
)
from poolproof.drill.proxy import Proxy

if TYPE_CHECKING:
    from poolproof.drill.stage import Stage
    from poolproof.drill.target import Target

MOMENTS: Final = ("ping", "execute", "commit", "connect")


class _Wire(Proxied):
    """The network: a wire to a proxy on another host."""

    def __init__(self, host: namespace.Namespace, proxy: Proxy, target: Target) -> None:
        super().__init__(proxy, target)
        self._host = host

    def fail(self, *, newcomers: bool) -> None:  # noqa: ARG002 (a wire takes all along)
        self._host.drop()

    def mend(self, *, old: bool) -> None:
        if not old:
            for link in self._proxy.links:
                link.stall()
        self._host.deliver()


def play(stage: Stage) -> OutageOutcome:
    """Lose the packets at four moments, with eight callers each time."""
    with (
        namespace.Namespace() as host,
        Proxy(stage.target.address(), host.listen()) as proxy,
    ):
        return suffer(
            stage,
            _Wire(host, proxy, stage.target.through(proxy.port, host.address)),
            incident="blackhole",
            moments=MOMENTS,
            newcomers_at_ping=True,
        )


INCIDENT: Final = Incident(
    name="blackhole",
    headline="every packet is lost, at four moments",
    play=play,
    measures=MEASURES,
    note=NOTE,
    place="quiet",
    trials_max=1,
    lacks=namespace.lacks,
    bound_s=90.0,
    uses_proxy=True,
)
