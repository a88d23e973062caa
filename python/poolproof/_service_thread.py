"""A thread of this process that works for the package while there is something to do.

There is at most one of a kind, started at the first need; it ends when nothing is left,
and the next need starts another. Nothing here waits for a lock, which a fork could copy
while it is held: taking the thread's place is one step on a dictionary. A child has no
copy of the thread; it makes a `ServiceThread` of its own.
"""

from __future__ import annotations

import _thread
import threading
from typing import TYPE_CHECKING

from poolproof._cooperative import locks_are_replaced

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ServiceThread"]


class ServiceThread:
    """At most one daemon thread; a greenlet where gevent or eventlet makes them."""

    __slots__ = ("_ended", "_name", "_running", "_work")

    def __init__(
        self, name: str, work: Callable[[], None], ended: Callable[[], None]
    ) -> None:
        """Make one that does not run yet.

        Args:
            name: The thread's.
            work: Called in the thread, which ends with it.
            ended: Called then, in the thread, when another one may be started: what was
                asked for in the last instant has found this one.
        """
        self._name = name
        self._work = work
        self._ended = ended
        self._running: dict[str, _Run] = {}

    @property
    def runs(self) -> bool:
        """Whether there is a thread, or one is being started."""
        return bool(self._running)

    def start(self, prepare: Callable[[], None] | None = None) -> None:
        """Start the thread, if there is none.

        Args:
            prepare: Called before, if there is none.

        Raises:
            RuntimeError: No thread is to be had, now.
        """
        run = _Run(self)
        try:
            if self._running.setdefault(self._name, run) is run:
                if prepare is not None:
                    prepare()
                run.start(self._name)
        except BaseException:
            # Interrupted (Ctrl-C), it may have begun all the same.
            if self._running.get(self._name) is run and not run.has_begun:
                self._running.pop(self._name, None)
            raise

    def join(self, seconds: float) -> None:
        """Wait for the thread's end, if there is one and it is another than this.

        Args:
            seconds: How long at most.
        """
        run = self._running.get(self._name)
        if run is not None:
            run.join(seconds)

    def run(self, run: _Run) -> None:
        """Do the work in a thread.

        Args:
            run: The thread's.
        """
        if self._running.setdefault(self._name, run) is not run:
            return
        try:
            self._work()
        finally:
            self._running.pop(self._name, None)
            self._ended()


class _Run:
    """One thread, from before its start.

    Attributes:
        has_begun: Whether it has begun.
    """

    __slots__ = ("_service", "_thread", "has_begun")

    def __init__(self, service: ServiceThread) -> None:
        self._service = service
        self._thread: threading.Thread | None = None
        self.has_begun = False

    def start(self, name: str) -> None:
        """Start it."""
        if locks_are_replaced():
            # A greenlet lives on in a child, where the module threading has forgotten
            # it, and would complain at its end.
            _thread.start_new_thread(self._begin, ())
        else:
            self._thread = threading.Thread(target=self._begin, name=name, daemon=True)
            self._thread.start()

    def _begin(self) -> None:
        self.has_begun = True
        self._service.run(self)

    def join(self, seconds: float) -> None:
        """Wait for its end, if it is another thread."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        if thread.is_alive():  # else it has ended, or was interrupted as it began
            thread.join(seconds)
