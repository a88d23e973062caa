"""The notifier: one thread of a process that passes on the news of the control plane.

The control plane calls nobody back. This thread waits for its news, tells leases that
they were lost, has the log say what befell leases and heartbeats, and wakes tasks of
asyncio whose answer has come. It runs while some lease is held, some heartbeat beats or
some task waits; a child begins with a new one.
"""

from __future__ import annotations

import atexit
import contextlib
import time
import weakref
from typing import TYPE_CHECKING, Protocol

from poolproof import _native
from poolproof._cooperative import locks_are_replaced
from poolproof._log import Log
from poolproof._service_thread import ServiceThread

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["at_end", "unwatch", "watch"]

NAME = "poolproof-notifier"
_SLICE_S = 3600.0
_POLL_S = 0.1
_JOIN_S = 1.0

_log = Log("poolproof.lease")


class Watched(Protocol):
    """Who wants to hear that there is news of something."""

    def tell(self) -> None:
        """Look at it, and say so to whoever wants to know."""


class Notifier:
    """The thread of one process, and whom it may have to tell."""

    def __init__(self, generation: int) -> None:
        """Make one that does not run yet.

        Args:
            generation: Of the process that it is for.
        """
        self._generation = generation
        self._watched: weakref.WeakValueDictionary[int, Watched] = (
            weakref.WeakValueDictionary()
        )
        self._thread = ServiceThread(NAME, self._run, self._start_again)

    def watch(self, number: int, who: Watched) -> bool:
        """Tell somebody when there is news, and see to it that a thread does.

        Args:
            number: That the news will bear.
            who: Kept weakly.

        Returns:
            Whether there is such a thread.
        """
        self._watched[number] = who
        if not _ending:
            self._start()
        return self._thread.runs and not _ending

    def unwatch(self, number: int) -> None:
        """Tell of something no more.

        Args:
            number: That its news bear.
        """
        self._watched.pop(number, None)
        if not self._watched:
            _native.wake_events()

    def end(self) -> None:
        """Have the thread end, and wait for it for a moment."""
        _native.wake_events()
        self._thread.join(_JOIN_S)

    def _start(self) -> None:
        try:
            self._thread.start()
        except RuntimeError as error:  # no thread is to be had, now
            _log.warning(
                "The notifier cannot start, and on_lost is not called: %s", error
            )

    def _start_again(self) -> None:
        if self._goes_on():
            self._start()

    def _run(self) -> None:
        is_cooperative = locks_are_replaced()
        while self._goes_on():
            if is_cooperative:
                time.sleep(_POLL_S)
            for number in _native.events(0.0 if is_cooperative else _SLICE_S):
                self._tell(number)

    def _goes_on(self) -> bool:
        is_ours = self._generation == _native.generation()
        return is_ours and bool(self._watched) and not _ending

    def _tell(self, number: int) -> None:
        who = self._watched.get(number)
        if who is None:
            return
        try:
            who.tell()
        except Exception:  # noqa: BLE001 - of on_lost, of any class
            _log.exception("on_lost of a lease failed")


_notifiers: dict[int, Notifier] = {}
_ending = False
_last: list[Callable[[], None]] = []


def _notifier() -> Notifier:
    generation = _native.generation()
    found = _notifiers.get(generation)
    if found is None:
        found = _notifiers.setdefault(generation, Notifier(generation))
    return found


def watch(number: int, who: Watched) -> bool:
    """Have somebody told when there is news; see `Notifier.watch`."""
    return _notifier().watch(number, who)


def unwatch(number: int) -> None:
    """Have nobody told of something any more; see `Notifier.unwatch`."""
    _notifier().unwatch(number)


def at_end(what: Callable[[], None]) -> None:
    """Have something done when the interpreter ends, before the thread does.

    Args:
        what: Called once, without arguments.
    """
    _last.append(what)


def _end() -> None:
    global _ending  # noqa: PLW0603 - the state of this process
    # Ctrl-C means that nobody is to wait any longer, and nothing is: the interpreter
    # would print it as an error, and end as it does now.
    with contextlib.suppress(KeyboardInterrupt):
        for what in _last:
            what()
    _ending = True
    notifier = _notifiers.get(_native.generation())
    if notifier is not None:
        with contextlib.suppress(KeyboardInterrupt):
            notifier.end()


atexit.register(_end)
