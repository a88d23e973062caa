"""What the parts of a pool know of the pool that they are parts of.

The pool has them, and they have it: without this the files of both would stand in a
circle. It is a type and no object: the parts are given the `Pool` itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from types import CodeType

    from poolproof._counts import Counts
    from poolproof._log import Seldom
    from poolproof.control.stranded import Stranded
    from poolproof.pool.settings import Settings
    from poolproof.pool.totals import Totals

__all__ = ["Owner"]


class Owner(Protocol):
    """A pool, as its entries know it; `Pool` says what each of these is."""

    settings: Settings
    logger: Any
    discarded: Counts
    totals: Totals
    unopened: Counts
    stranded: Stranded
    idle_after: float
    bounds_checkins: bool
    listeners: Any
    quiet_checkin: Any
    hears_checkins: Any
    warned_of_state: bool
    warned_of_pooler: bool
    waits_noted: Seldom
    _dialect: Any
    _recycle: int
    _invalidate_time: float

    def name(self) -> str:
        """What the pool is called in messages."""

    def caller(self) -> tuple[str, list[tuple[CodeType, int]]]:
        """Name the task that calls, and say where it does."""

    def see_new_listeners(self) -> None:
        """See whose questions are to be bounded, where a listener has come."""

    def remember(self, entry: Any) -> None:
        """Have an entry made quiet in children, for as long as it lives."""

    def read_session(self, entry: Any) -> None:
        """Read what was set in a session that was just opened, where it is wanted."""

    def give_up(self, entry: Any) -> None:
        """Take back the slot of an entry whose check-in failed half-way."""

    def _do_return_conn(self, record: Any) -> None:
        """Take a connection back."""

    def has_idle(self) -> bool:
        """Tell whether a connection rests."""

    def timed_out(
        self, waited: float, reason: str = "", *, spent_on: str = "slot"
    ) -> Exception:
        """Make the error of a checkout whose time is over."""
