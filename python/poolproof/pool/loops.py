"""Loops of asyncio, and the tasks that wait in them for a slot.

A task waits on a future of its loop, in SQLAlchemy's greenlet; whoever gives a slot
back, in this loop or in another thread, wakes it. `Wakeup` has the methods of a lock as
far as the pool uses them; so the queue and the connector are the same for threads,
greenlets and tasks.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sqlalchemy.util import await_only

from poolproof import _native
from poolproof._cooperative import CooperativeWaiters

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolproof._native import Gate, Nested, QueueFull, Ticket, Waiter

__all__ = ["FirstConnect", "TaskWaiters", "Wakeup", "is_alive", "running_loop"]


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the loop that runs in this thread; None where none does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def is_alive(loop: asyncio.AbstractEventLoop | None) -> bool:
    """Tell whether something can be done in a loop now.

    Args:
        loop: A loop, or None.
    """
    return loop is not None and not loop.is_closed() and loop.is_running()


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Wakeup:
    """What a task waits on: released by anybody, acquired in its own loop.

    Attributes:
        place: Its place in the queue, where it has one.
    """

    __slots__ = ("_future", "_is_held", "_loop", "place")

    def __init__(self) -> None:
        """Make one for the running loop.

        Raises:
            RuntimeError: No loop runs here.
        """
        self._loop = asyncio.get_running_loop()
        self._is_held = False
        self._future: asyncio.Future[None] | None = None
        self.place: Waiter | None = None

    @property
    def is_stranded(self) -> bool:
        """Whether its loop has been closed: nobody will ever go on."""
        return self._loop.is_closed()

    def locked(self) -> bool:
        """Tell whether it is held."""
        return self._is_held

    def acquire(self, _blocking: bool = True, seconds: float = -1.0) -> bool:
        """Take it; wait for its release where it is held.

        Args:
            seconds: For how long; below 0 without bound.

        Returns:
            Whether it was released.
        """
        if self._is_held:
            self._future = future = self._loop.create_future()
            timer = None
            if seconds >= 0:
                timer = self._loop.call_later(seconds, _finish, future)
            try:
                if self._is_held:  # it may have been released by another thread
                    await_only(future)
            finally:
                self._future = None
                if timer is not None:
                    timer.cancel()
            if self._is_held:
                return False
        self._is_held = True
        return True

    def release(self) -> None:
        """Let the task go on."""
        self._is_held = False
        future = self._future
        if future is None:
            return
        if running_loop() is self._loop:
            _finish(future)
            return
        try:
            self._loop.call_soon_threadsafe(_finish, future)
        except RuntimeError:  # its loop was closed
            return

    def release_in_child(self) -> None:
        """Let the task go on in a child, whose loop has no other thread.

        To wake the loop as another thread does would be to write to the parent's.
        """
        self._is_held = False
        if self._future is not None:
            _finish(self._future)


class TaskWaiters(CooperativeWaiters):
    """The tasks that wait for a slot of one pool, in whatever loop."""

    __slots__ = ()

    # Seldom, for there may be a thousand: the pool has no destructor that gives back.
    look_again_s = 2.0

    def make_wakeup(self) -> Any:
        """Make what the running task waits on."""
        return Wakeup()

    def strand(self) -> int:
        """Number the running task; the thread, where none runs."""
        loop = running_loop()
        task = None if loop is None else asyncio.current_task(loop)
        return id(task) if task is not None else super().strand()

    def wait_and_tell(
        self,
        gate: Gate,
        timeout: float | None,
        tell: Callable[[Waiter], float | None],
    ) -> Ticket | Nested | QueueFull | None:
        """Wait for a slot; see `CooperativeWaiters`.

        Args:
            gate: The gate that lends the slots.
            timeout: How long to wait, in seconds; None is without bound.
            tell: Called with the place; returns how long to wait instead.

        Returns:
            The ticket; None when the time is over; a `Nested`, or a `QueueFull`.
        """

        def placed(place: Waiter) -> float | None:
            self._wakeups[place.number].place = place
            return tell(place)

        return super().wait_and_tell(gate, timeout, placed)

    def wake(self, number: int | None) -> None:
        """Wake a waiter; where its loop was closed, the slot goes to the next.

        Args:
            number: What the gate has answered.
        """
        while number is not None:
            wakeup = self._wakeups.get(number)
            if wakeup is None or not wakeup.is_stranded:
                self._wake(wakeup)
                return
            self._wakeups.pop(number, None)
            ticket = None if wakeup.place is None else wakeup.place.leave()
            number = None if ticket is None else ticket.give_back()

    def wake_all(self) -> None:
        """Wake all: their gate has gone, for this is a child."""
        for wakeup in list(self._wakeups.values()):
            wakeup.release_in_child()


class FirstConnect:
    """The mutex of a pool's first connect, for the tasks of several loops.

    SQLAlchemy's own is one of asyncio's, which knows one loop.
    """

    __slots__ = ("_gate", "_ticket", "_waiters")

    def __init__(self) -> None:
        """Make one that is free."""
        self._gate = _native.Gate(kept=None, total=1, lifo=False)
        self._waiters = TaskWaiters()
        self._ticket: Ticket | None = None

    def locked(self) -> bool:
        """Tell whether it is held."""
        return self._ticket is not None

    def __enter__(self) -> None:
        """Wait for it."""
        self._ticket = self._waiters.wait(self._gate, None)

    def __exit__(self, *_error: object) -> None:
        """Let the next one have it."""
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            self._waiters.wake(ticket.vacate())
