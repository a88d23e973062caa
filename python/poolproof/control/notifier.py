"""The notifier: one thread of a process that passes on the news of the control plane.

The control plane calls nobody back. This thread waits for its news, tells leases that
they were lost, has the log say what befell leases and heartbeats, and wakes tasks of
asyncio whose answer has come. It runs while some lease is held, some heartbeat beats or
some task waits; a child begins with a new one.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import threading
import time
import weakref
from typing import TYPE_CHECKING, Protocol

from poolproof import _native
from poolproof._cooperative import locks_are_replaced
from poolproof._log import Log

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
        self._lock = threading.Lock()
        # Of the thread that tells. One whose turn is over ends.
        self._turn: object | None = None
        self._thread: threading.Thread | None = None

    def watch(self, number: int, who: Watched) -> bool:
        """Tell somebody when there is news, and see to it that a thread does.

        Args:
            number: That the news will bear.
            who: Kept weakly.

        Returns:
            Whether there is such a thread.
        """
        with self._lock:
            self._watched[number] = who
            if self._turn is None and not _ending:
                try:
                    self._turn = turn = object()
                    self._start(turn)
                except BaseException as error:
                    # Interrupted (Ctrl-C), it may have begun all the same.
                    self._turn = None
                    if not isinstance(error, RuntimeError):
                        raise
                    # No thread is to be had, now.
                    _log.warning(
                        "The notifier cannot start, and on_lost is not called: %s",
                        error,
                    )
            return self._turn is not None and not _ending

    def unwatch(self, number: int) -> None:
        """Tell of something no more.

        Args:
            number: That its news bear.
        """
        self._watched.pop(number, None)
        if not self._watched:
            _native.wake_news()

    def end(self) -> None:
        """Have the thread end, and wait for it for a moment."""
        thread = self._thread
        _native.wake_news()
        if thread is None or thread is threading.current_thread():
            return
        if thread.is_alive():  # else it has ended, or was interrupted as it began
            thread.join(_JOIN_S)

    def _start(self, turn: object) -> None:
        if locks_are_replaced():
            # A greenlet goes on in a child of a fork, where `threading` has forgotten
            # its thread, and would fail at its end.
            _thread.start_new_thread(self._run, (turn,))
        else:
            self._thread = threading.Thread(
                target=self._run, args=(turn,), name=NAME, daemon=True
            )
            self._thread.start()

    def _run(self, turn: object) -> None:
        is_cooperative = locks_are_replaced()
        while self._goes_on(turn):
            if is_cooperative:
                time.sleep(_POLL_S)
            for number in _native.news(0.0 if is_cooperative else _SLICE_S):
                self._tell(number)

    def _goes_on(self, turn: object) -> bool:
        is_ours = self._generation == _native.generation()
        with self._lock:
            if self._turn is not turn:
                return False
            if is_ours and self._watched and not _ending:
                return True
            self._turn = None
        return False

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
