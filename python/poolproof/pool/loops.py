"""Loops of asyncio, and the tasks that wait in them for a slot.

A task waits on a future of its loop, in SQLAlchemy's greenlet; whoever gives a slot
back, in this loop or in another thread, wakes it. `Wakeup` has the methods of a lock as
far as the pool uses them; so the queue and the connector are the same for threads,
greenlets and tasks.
"""

from __future__ import annotations

import asyncio
import math
from asyncio.events import _get_running_loop
from time import monotonic
from typing import TYPE_CHECKING, Any

from sqlalchemy import exc
from sqlalchemy.util import await_only

from poolproof import _native
from poolproof._cooperative import CooperativeWaiters

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolproof._native import Gate, Nested, QueueFull, Ticket, Waiter

__all__ = ["TaskWaiters", "Wakeup", "is_alive", "running_loop"]

_PASSED_OVER = object()

running_loop = _get_running_loop
"""Returns the loop that runs in this thread; None where none does.

asyncio's own for those who implement loops: the public one raises where none runs.
"""


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

    __slots__ = ("_future", "_is_held", "_loop", "_released_at", "place")

    def __init__(self, place: Waiter | None = None) -> None:
        """Make one for the running loop; that of a place in the queue is held.

        Args:
            place: The place in the queue.

        Raises:
            RuntimeError: No loop runs here.
        """
        self._loop = asyncio.get_running_loop()
        self._is_held = place is not None
        self._future: asyncio.Future[None] | None = None
        self._released_at: float | None = None
        self.place = place

    def lag(self, now: float) -> float | None:
        """Say for how long it has been released.

        Args:
            now: The time, on the monotonic clock.

        Returns:
            Seconds; None where it has not been.
        """
        released_at = self._released_at
        return None if released_at is None else max(0.0, now - released_at)

    @property
    def is_stranded(self) -> bool:
        """Whether its loop stands still, or was closed: nobody goes on there."""
        return not self._loop.is_running()

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

    def wait(self, alarm: Alarm, due: float) -> None:
        """Wait for its release, or until the alarm has the task look again.

        Args:
            alarm: That of the running loop.
            due: When that is at the latest, on the monotonic clock.
        """
        if self._is_held:
            try:
                self._future = future = self._loop.create_future()
                alarm.add(self, due)
                if self._is_held:  # it may have been released by another thread
                    await_only(future)
            finally:
                self._future = None
                alarm.remove(self)
        self._is_held = True

    def look_again(self) -> None:
        """Have the task go on as if it had been released; for its own loop."""
        if self._future is not None:
            _finish(self._future)

    def release(self) -> None:
        """Let the task go on."""
        self._released_at = monotonic()
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


class Alarm:
    """The one timer of all tasks that wait in a loop: a thousand would be a heap.

    Attributes:
        loop: The loop, in whose thread alone this is used.
    """

    __slots__ = ("_due", "_timer", "_waiters", "_waiting", "loop")

    # How far apart two rings are at least, in seconds, so that those whose time is over
    # one after another are told together.
    _APART_S = 0.002

    def __init__(self, loop: asyncio.AbstractEventLoop, waiters: TaskWaiters) -> None:
        """Make one that does not run.

        Args:
            loop: The running loop.
            waiters: All who wait for the same, in other loops as well.
        """
        self.loop = loop
        self._waiters = waiters
        # Who waits, and until when on the monotonic clock.
        self._waiting: dict[Wakeup, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def add(self, wakeup: Wakeup, due: float) -> None:
        """Have somebody look again when it is time.

        Args:
            wakeup: What it waits on.
            due: When, on the monotonic clock.
        """
        self._waiting[wakeup] = due
        if self._timer is None or due < self._due:
            self._set(due)

    def remove(self, wakeup: Wakeup) -> None:
        """Let one be who does not wait any more; the timer may run out for nothing.

        Args:
            wakeup: What it has waited on.
        """
        self._waiting.pop(wakeup, None)

    def _set(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        left = max(self._APART_S, due - monotonic())
        self._timer = self.loop.call_later(left, self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = monotonic()
        next_due = math.inf
        for wakeup, due in self._waiting.items():
            if due <= now:
                wakeup.look_again()
            elif due < next_due:
                next_due = due
        if next_due < math.inf:
            self._set(next_due)
        self._waiters.pass_over_all()


class TaskWaiters(CooperativeWaiters):
    """The tasks that wait for a slot of one pool, in whatever loop."""

    __slots__ = ("_alarms",)

    # Seldom, for there may be a thousand: the pool has no destructor that gives back.
    look_again_s = 2.0

    def __init__(self) -> None:
        """Make an empty set."""
        super().__init__()
        self._alarms: dict[asyncio.AbstractEventLoop, Alarm] = {}

    def _alarm_of(self, loop: asyncio.AbstractEventLoop) -> Alarm:
        alarm = self._alarms.get(loop)
        if alarm is None:
            for other in list(self._alarms):
                if other.is_closed():
                    self._alarms.pop(other, None)
            alarm = self._alarms[loop] = Alarm(loop, self)
        return alarm

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

        Raises:
            MissingGreenlet: No loop runs here.
        """
        loop = running_loop()
        if loop is None:
            msg = (
                "no connection is free, and no loop of asyncio runs in this thread to "
                "wait for one in: use the AsyncEngine, in a task"
            )
            raise exc.MissingGreenlet(msg)
        alarm = self._alarm_of(loop)
        began = monotonic()
        left = timeout
        while True:
            place = gate.join(self.strand(), left)
            if not isinstance(place, _native.Waiter):
                return place
            ended = self._stand(place, began, alarm, tell)
            if ended is not _PASSED_OVER:
                return ended  # type: ignore[return-value]
            if timeout is not None:
                left = max(0.0, began + timeout - monotonic())

    def _stand(
        self,
        place: Waiter,
        began: float,
        alarm: Alarm,
        tell: Callable[[Waiter], float | None],
    ) -> object:
        """Stand in the queue until it is one's turn, or too late."""
        number = place.number
        self._wakeups[number] = wakeup = Wakeup(place)
        try:
            timeout = tell(place)
            due = math.inf if timeout is None else began + timeout
            now = monotonic()
            while True:
                # What its loop was late is not counted as waiting for the slot.
                ticket = place.take(wakeup.lag(now))
                if ticket is not None:
                    return ticket
                if now >= due:
                    return place.run_out()
                if wakeup.place is None:
                    return _PASSED_OVER
                wakeup.wait(alarm, min(due, now + self.look_again_s))
                now = monotonic()
        except BaseException:
            # The error may keep this frame, and with it the place in the queue.
            ticket = place.leave()
            if ticket is not None:
                self.wake(ticket.give_back())
            raise
        finally:
            self._wakeups.pop(number, None)

    def wake(self, number: int | None) -> None:
        """Wake a waiter; where its loop stands still, the slot goes to the next.

        Args:
            number: What the gate has answered.
        """
        while number is not None:
            wakeup = self._wakeups.get(number)
            if wakeup is None or not wakeup.is_stranded:
                self._wake(wakeup)
                return
            number = self._pass_over(number, wakeup)

    def _pass_over(self, number: int, wakeup: Wakeup) -> int | None:
        """Have one leave the queue whose loop stands still; return whom to wake.

        If its loop goes on, it joins again.
        """
        self._wakeups.pop(number, None)
        # Taken from it first: who finds no slot in its place looks whether it has one.
        place, wakeup.place = wakeup.place, None
        ticket = None if place is None else place.leave()
        wakeup.release()
        return None if ticket is None else ticket.give_back()

    def pass_over_all(self) -> None:
        """Have all leave the queue whose loops stand still."""
        for number, wakeup in list(self._wakeups.items()):
            if wakeup.is_stranded:
                self.wake(self._pass_over(number, wakeup))

    def wake_all(self) -> None:
        """Wake all: their gate has gone, for this is a child."""
        for wakeup in list(self._wakeups.values()):
            wakeup.release_in_child()
