"""What the parts of a pool know of the pool that they are parts of.

The pool has them, and they have it: without this the files of both would stand in a
circle. It is a type and no object: the parts are given the `Pool` itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from poolproof._counts import Counts
    from poolproof.control.stranded import Stranded
    from poolproof.pool.settings import Settings

__all__ = ["Owner"]


class Owner(Protocol):
    """A pool, as its entries know it; `Pool` says what each of these is."""

    settings: Settings
    logger: Any
    discarded: Counts
    unopened: Counts
    stranded: Stranded
    idle_after: float
    bounds_checkins: bool
    warned_of_state: bool
    warned_of_pooler: bool
    _dialect: Any

    def name(self) -> str:
        """What the pool is called in messages."""

    def remember(self, entry: Any) -> None:
        """Have an entry made quiet in children, for as long as it lives."""

    def read_session(self, entry: Any) -> None:
        """Read what was set in a session that was just opened, where it is wanted."""

    def give_up(self, entry: Any) -> None:
        """Take back the slot of an entry whose check-in failed half-way."""

    def has_idle(self) -> bool:
        """Tell whether a connection rests."""

    def timed_out(self, waited: float, reason: str = "") -> Exception:
        """Make the error of a checkout whose time is over."""
