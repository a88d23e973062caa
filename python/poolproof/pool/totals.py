"""What a pool has counted in this process, for metrics.

It outlives the pool: one that takes its place (`Engine.dispose`) goes on with it, so
that no number falls.
"""

from __future__ import annotations

from poolproof import _native
from poolproof._counts import Counts, Tallies

__all__ = ["Totals"]


class Totals(Tallies):
    """The counts and times of one pool since its first predecessor was made.

    Attributes:
        timings: Waits, holds, connects and pings, as the core has them.
        discarded: Connections discarded, by reason.
        stranded: Backends left behind, by what became of them.
        timeouts: Checkouts whose time was over, by what it was spent on: ``"slot"``,
            ``"connect"``, ``"breaker"`` and ``"queue_full"`` (refused at once),
            ``"host_budget"``, ``"deadline"``.
        connects: Attempts to connect: ``"ok"`` or ``"failed"``.
        pings: Questions whether a connection is at rest: ``"ok"``, ``"no_answer"``,
            ``"wrong_answer"``.
    """

    __slots__ = ("connects", "discarded", "pings", "stranded", "timeouts", "timings")

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self.timings = _native.Timings()
        self.discarded = Counts()
        self.stranded = Counts()
        self.timeouts = Counts()
        self.connects = Counts()
        self.pings = Counts()

    def absorb(self, other: Tallies) -> None:
        """Add what another pool has counted.

        Args:
            other: Another's.
        """
        super().absorb(other)
        if isinstance(other, Totals):
            self.timings.absorb(other.timings)
