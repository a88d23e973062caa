"""Who has held a connection for too long: the stack of its checkout, logged once.

Remembered cheaply, for it happens at each checkout of a pool with a `hold_warning`: the
code of each frame and a place in it, never a frame, which would keep the caller's
variables alive. Lines are looked up only when there is something to say.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Protocol

from poolproof._log import fields, surroundings
from poolproof.drivers import backend
from poolproof.pool.code_places import line_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poolproof.pool.activity import IdleHold
    from poolproof.pool.owner import Owner

__all__ = ["Hold", "warn"]

_DEPTH = 48
# Ours, which every such stack ends with: this module, the keeper's hook, the pool.
_OURS = 3


class Hold:
    """One checkout, since its beginning.

    Attributes:
        due: When to warn of it, on the monotonic clock; infinite when that was done.
        strand: The thread or greenlet, as `threading.get_ident` numbers it.
        surroundings: What a log record tells of where it was made.
        idle: What goes on on the connection, where the pool minds that.
    """

    __slots__ = (
        "_frames",
        "_since",
        "_thread",
        "due",
        "idle",
        "strand",
        "surroundings",
    )

    idle: IdleHold | None

    def __init__(self, seconds: float, pool: Owner) -> None:
        """Remember the caller, and what called it.

        Args:
            seconds: How long the connection may be held without a word, more than 0,
                or infinite.
            pool: Knows who the caller is, where its thread runs several.
        """
        self._since = now = time.monotonic()
        self.due = now + seconds
        self.idle = None
        task, places = pool.caller()
        thread = threading.current_thread().name
        self._thread = f"{task} of {thread}" if task else thread
        self.strand = threading.get_ident()
        self.surroundings = surroundings()
        frame = sys._getframe(_OURS)
        self._frames = frames = [(frame.f_code, frame.f_lasti)]
        while (caller := frame.f_back) is not None and len(frames) < _DEPTH:
            frame = caller
            frames.append((frame.f_code, frame.f_lasti))
        # What awaits the greenlet of these.
        frames.extend(places)

    def describe(self, now: float) -> str:
        """Say who holds, for how long, and since which call.

        Args:
            now: The time, on the monotonic clock.
        """
        stack = traceback.StackSummary.from_list(
            (code.co_filename, line_of(code, at), code.co_name, None)
            for code, at in reversed(self._frames)
        )
        return (
            f"{self._thread} of process {os.getpid()} for {now - self._since:.2f} s; "
            f"it was checked out at:\n{''.join(stack.format())}"
        )


class Held(Protocol):
    """What a caller may hold."""

    held: Hold | None


def warn(pool: Owner, entries: Iterable[Held], now: float) -> float:
    """Warn of the connections that have been held for too long, each once.

    Args:
        pool: The pool that lent them.
        entries: Its entries.
        now: The time, on the monotonic clock.

    Returns:
        When the next of those that are held is due, on the monotonic clock.
    """
    next_due = math.inf
    for entry in entries:
        hold = entry.held
        if hold is None:
            continue
        if hold.due > now:
            next_due = min(next_due, hold.due)
            continue
        hold.due = math.inf
        pool.logger.warning(
            "poolproof: A connection of pool %s (backend pid %s) is held by %s",
            pool.name(),
            backend.pid_of(entry) or "unknown",
            hold.describe(now).rstrip(),
            extra=fields(
                pool=pool.name(),
                backend_pid=backend.pid_of(entry),
                **hold.surroundings,
            ),
        )
    return next_due
