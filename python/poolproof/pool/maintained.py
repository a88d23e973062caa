"""What those who look after a pool know of it: the keeper, and who looks for nests.

As with `Owner`, a type and no object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from poolproof.fork.renewal import Renewable
from poolproof.pool.owner import Owner

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolproof._cooperative import CooperativeWaiters
    from poolproof._native import Gate, Ticket
    from poolproof.pool.connector import Connecting
    from poolproof.pool.entry import Entry
    from poolproof.pool.host_budget import HostBudget
    from poolproof.pool.open_shares import OpenShares

__all__ = ["Maintained"]


class Maintained(Renewable, Owner, Protocol):
    """A pool, with its slots; `Pool` says what each of these is."""

    has_strands: bool
    bounds: tuple[int, int]
    drains: int
    is_used: bool
    next_look: float
    nests: Any
    _checkout_timeout: float | None
    _is_asyncio: bool
    budget: HostBudget | None
    shares: OpenShares
    _connecting: Connecting
    _gate: Gate
    _idle: dict[int, Entry]
    _waiters: CooperativeWaiters

    def entries(self) -> list[Entry]:
        """List the entries, at rest or not."""

    def strand(self) -> int:
        """Number the caller, where its thread runs several."""

    def open_ahead(self, work: Callable[[], float]) -> float:
        """Have a connection opened ahead of need, where that can be done."""

    def timeout(self) -> float | None:
        """How long a caller waits for a slot."""

    def mind(self) -> None:
        """Have the keeper hear of each checkout and check-in from now on."""

    def _open_entry(
        self,
        ticket: Ticket,
        began: float,
        due: float | None,
        *,
        is_patient: bool = True,
    ) -> Entry:
        """Connect for an empty slot."""
