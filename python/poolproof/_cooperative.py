"""Callers that wait for a slot without blocking their thread: gevent, eventlet.

Where the standard locks are replaced, sleeping in Rust would stop every greenlet of
the thread. Such a caller sleeps on a lock of its own kind, and the gate says which of
them to release when a slot is free.
"""

from __future__ import annotations

import _thread
import threading
import time
import types
from typing import TYPE_CHECKING, Any

from poolproof import _native

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolproof._native import Gate, Nested, QueueFull, Ticket, Waiter

__all__ = ["CooperativeWaiters", "locks_are_replaced"]


def locks_are_replaced() -> bool:
    """Tell whether gevent or eventlet has replaced the standard locks."""
    allocate: Any = _thread.allocate_lock
    return not isinstance(allocate, types.BuiltinFunctionType)


class CooperativeWaiters:
    """The wake-ups of one pool's cooperative waiters, by the number of their wait."""

    __slots__ = ("_wakeups",)

    # A waiter looks for its slot this often by itself, in seconds: a slot that was
    # given back by a destructor wakes none of them. Under overload hundreds wait and
    # are refused, so the time of a short wait is not divided.
    look_again_s = 0.5

    def __init__(self) -> None:
        """Make an empty set."""
        self._wakeups: dict[int, Any] = {}

    def make_wakeup(self) -> Any:
        """Make a lock of the caller's own kind."""
        return threading.Lock()

    def strand(self) -> int:
        """Number the caller, as no other that waits or holds is numbered."""
        return threading.get_ident()

    def wait(self, gate: Gate, timeout: float | None) -> Ticket | None:
        """Wait for a slot on the caller's own kind of lock.

        Args:
            gate: The gate that lends the slots.
            timeout: How long to wait, in seconds; None is without bound.

        Returns:
            The ticket, or None when the time is over.

        Raises:
            Forked: The process was forked meanwhile, and this is the child.
        """
        ended = self.wait_and_tell(gate, timeout, lambda _: timeout)
        return ended if isinstance(ended, _native.Ticket) else None

    def wait_and_tell(
        self,
        gate: Gate,
        timeout: float | None,
        tell: Callable[[Waiter], float | None],
    ) -> Ticket | Nested | QueueFull | None:
        """Wait for a slot, and have the place in the queue looked at before.

        Args:
            gate: The gate that lends the slots.
            timeout: How long to wait, in seconds; None is without bound.
            tell: Called with the place; returns how long to wait instead.

        Returns:
            The ticket; None when the time is over; a `Nested` when it is, and every
            holder waited too; a `QueueFull`, at once, where as many wait as may.

        Raises:
            Forked: The process was forked meanwhile, and this is the child.
        """
        started = time.monotonic()
        place = gate.join(self.strand(), timeout)
        if not isinstance(place, _native.Waiter):
            return place
        wakeup = self.make_wakeup()
        wakeup.acquire()
        self._wakeups[place.number] = wakeup
        try:
            timeout = tell(place)
            while True:
                ticket = place.take()
                if ticket is not None:
                    return ticket
                left = self.look_again_s
                if timeout is not None:
                    left = min(left, started + timeout - time.monotonic())
                    if left <= 0:
                        return place.run_out()
                wakeup.acquire(True, left)
        except BaseException:
            # The error may keep this frame, and with it the place in the queue.
            ticket = place.leave()
            if ticket is not None:
                self.wake(ticket.give_back())
            raise
        finally:
            self._wakeups.pop(place.number, None)

    def wake(self, number: int | None) -> None:
        """Wake a waiter; None, and one that has gone, is let be.

        Args:
            number: What the gate has answered.
        """
        if number is not None:
            self._wake(self._wakeups.get(number))

    def wake_all(self) -> None:
        """Wake all: their gate has gone."""
        for wakeup in list(self._wakeups.values()):
            self._wake(wakeup)

    @staticmethod
    def _wake(wakeup: Any) -> None:
        if wakeup is not None and wakeup.locked():
            wakeup.release()
