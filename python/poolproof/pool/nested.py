"""Callers that wait for what they hold themselves.

Each holds a connection and asks for one more, and all connections are out: nothing
comes back before one of them gives up. The gate sees it at the instant at which the
last holder begins to wait, and it is said at once, in the log. It is no proof: another
thread may return what a waiting one has checked out. So nobody is refused early, unless
the pool has a `nested_timeout`.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING

from poolproof._log import fields
from poolproof.errors import NestedCheckout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poolproof._native import Nested, Ticket, Waiter
    from poolproof.pool.hold_warning import Hold
    from poolproof.pool.maintained import Maintained

__all__ = ["Nests"]

# One warning in so long, in seconds, for each pool.
_NOT_AGAIN_S = 60.0
_OTHERS_SHOWN = 2


class Nests:
    """What one pool has seen of callers that wait for what they hold.

    Attributes:
        seen: Whether it has happened. From then on checkouts are remembered, so that
            the next warning says where a connection was checked out.
    """

    __slots__ = ("_said_at", "seen")

    def __init__(self) -> None:
        """Make one for a pool that has seen nothing yet."""
        self.seen = False
        self._said_at = -_NOT_AGAIN_S

    def sleep(
        self, pool: Maintained, place: Waiter, limit: float | None
    ) -> Ticket | Nested | None:
        """Say what has happened, then wait.

        Args:
            pool: The pool whose last holder has begun to wait.
            place: Its place in the queue.
            limit: How long it may wait, in seconds; None is without bound.
        """
        try:
            return place.sleep(self.told(pool, place, limit))
        except BaseException:
            # The error may keep this frame, and with it the place in the queue.
            ticket = place.leave()
            if ticket is not None:
                ticket.give_back()
            raise

    def told(
        self, pool: Maintained, place: Waiter, limit: float | None
    ) -> float | None:
        """Say what has happened, if anything has.

        Args:
            pool: The pool.
            place: The place of one who begins to wait.
            limit: How long it may wait, in seconds; None is without bound.

        Returns:
            How long it is to wait.
        """
        nested = place.nested
        if nested is None:
            return limit
        now = time.monotonic()
        if now - self._said_at >= _NOT_AGAIN_S:
            self._said_at = now
            pool.logger.warning(
                "poolproof: %s",
                "".join(_describe(pool, nested, now)).rstrip(),
                extra=fields(pool=pool.name()),
            )
        if not self.seen:
            self.seen = True
            pool.mind()
        own = pool.settings.nested_timeout
        if own is None:
            return limit
        return own if limit is None else min(own, limit)


def _describe(pool: Maintained, nested: Nested, now: float) -> Iterator[str]:
    """Say it in words, with the stack of the caller and of others who hold."""
    holds = [entry.held for entry in pool.entries() if entry.held is not None]
    wanted = NestedCheckout.enough_for(nested.callers, nested.most)
    yield (
        f"Every connection of pool {pool.name()!r} is held by a caller that waits "
        "here for one more: none comes back before one of them gives up, unless "
        f"another thread returns it. {nested.callers} callers hold or want one, and "
        f"one of them holds {nested.most}: pool_size + max_overflow of {wanted} is "
        "always enough for them. Or let each do with the connection that it has. "
        f"{threading.current_thread().name}, which holds {nested.held}, waits at:\n"
    )
    yield from traceback.format_stack(sys._getframe(1))
    yield from _checkouts(holds, threading.get_ident(), now)
    for thread in _other_holders(pool):
        frame = sys._current_frames().get(thread.ident or 0)
        yield f"{thread.name}, which holds one too, waits at:\n"
        yield from traceback.format_stack(frame)
        yield from _checkouts(holds, thread.ident or 0, now)


def _checkouts(holds: list[Hold], strand: int, now: float) -> Iterator[str]:
    """Say where one caller has checked out what it holds."""
    theirs = [hold for hold in holds if hold.strand == strand]
    for hold in theirs:
        yield f"It holds one: {hold.describe(now)}"
    if not theirs:
        yield "Where it checked out what it holds is remembered from now on.\n"


def _other_holders(pool: Maintained) -> list[threading.Thread]:
    """Find a few threads that hold connections; greenlets have their thread's stack."""
    here = threading.get_native_id()
    holding = {thread for _slot, thread, _held_s in pool._gate.holders()} - {here}
    others = (one for one in threading.enumerate() if one.native_id in holding)
    return list(others)[:_OTHERS_SHOWN]
