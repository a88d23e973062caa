"""A budget for the host: so many connections in all of its processes together.

Who opens a connection takes a share first, and waits for one in a line that the kernel
keeps for all processes (src/process/shares.rs). A share is held for as long as its
connection is open, and given back when the server has let go of it: what the server
counts is never more than the budget. A process that ends, however it ends, holds none;
who takes the share of one that was killed lets the server notice first.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import exc

from poolproof import _native
from poolproof._log import Log
from poolproof.pool import budget_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolproof._native import Share, Shares
    from poolproof.pool.open_shares import OpenShares

__all__ = ["Exhausted", "HostBudget", "Parts"]

# Between looks whether there is a share, in seconds.
_FIRST_LOOK_S = 0.002
_LAST_LOOK_S = 0.02
# How long a share may be free before those behind take it, in seconds: the first in
# the line may be suspended.
_FREE_S = 0.1
# How long the server may take to notice that a process was killed, in seconds.
_MOURNING_S = 0.5
# For all that rests at the interpreter's end, in seconds, give or take one of them.
_EXIT_S = 2.0
_NAMED = 5

_log = Log("poolproof.budget")


@dataclass(frozen=True, slots=True)
class Parts:
    """Who has a budget's connections.

    Attributes:
        held: Connections by process, most first; 0 is one that cannot be seen from here
            (in another container).
        waiting: Callers that wait for one, in the same way.
    """

    held: dict[int, int]
    waiting: dict[int, int]


class Disposable(Protocol):
    """A pool, as far as it is to give back what rests."""

    shares: OpenShares

    def dispose(self) -> None:
        """Close what rests."""


class Exhausted(Exception):  # noqa: N818 - no error: it never leaves the pool
    """A caller's time was over before there was a share."""


class HostBudget:
    """One budget, as the pools of this process use it.

    Attributes:
        name: What it is called.
        most: Connections that there may be.
        path: Where its file stands.
    """

    __slots__ = ("__weakref__", "_said_number", "most", "name", "path")

    def __init__(self, name: str, most: int, path: str) -> None:
        """Make one; `of` has one for each file.

        Args:
            name: What it is called.
            most: Connections that there may be.
            path: Where its file stands.

        Raises:
            ArgumentError: The file cannot be used.
        """
        self.name = name
        self.most = most
        self.path = path
        self._said_number = False
        budget_file.opened(path)

    @classmethod
    def of(cls, given: Any, pool: Disposable) -> HostBudget | None:
        """Return the budget that a pool is to keep to.

        At the interpreter's end what rests in the pool is closed in order: otherwise
        whoever takes its shares next would wait as for those of a killed process.

        Args:
            given: The knob's value.
            pool: The pool.

        Returns:
            The same object for all pools of this process; None for no budget.

        Raises:
            ArgumentError: It cannot be used; or another engine of this process has
                another number for it.
        """
        budget = budget_file.checked(given)
        if budget is None:
            return None
        name, most, _directory = budget
        path = budget_file.place_of(budget)
        found = _known.get(path)
        if found is None:
            found = _known.setdefault(path, cls(name, most, path))
        if found.most != most:
            msg = (
                f"host_budget {name!r} is {most} here and {found.most} in another "
                "engine of this process: it is one number for all that share it"
            )
            raise exc.ArgumentError(msg)
        _pools.add(pool)
        return found

    def take(
        self,
        until: float | None,
        has_come: Callable[[], bool] | None,
        pause: Callable[[float], None] = time.sleep,
    ) -> Share | None:
        """Take a share, and wait for one in the line.

        Args:
            until: When to give up, on the monotonic clock; None never does.
            has_come: Says whether the caller has no more need of it.
            pause: Has the caller, thread or task, wait for so many seconds.

        Returns:
            The share; None when there is no more need of one.

        Raises:
            Exhausted: The time is over.
            Forked: The process was forked meanwhile, and this is the child.
            ArgumentError: The file cannot be used any more.
        """
        shares = self._shares()
        share = shares.take(self.most)
        if share is None:
            share = self._wait(shares, until, has_come, pause)
        if share is not None and share.was_left:
            try:
                pause(_MOURNING_S)
            except BaseException:  # which may keep this frame
                share.give_back(clear=False)
                raise
        return share

    def _wait(
        self,
        shares: Shares,
        until: float | None,
        has_come: Callable[[], bool] | None,
        pause: Callable[[float], None],
    ) -> Share | None:
        generation = _native.generation()
        place = shares.queue()
        try:
            apart = _FIRST_LOOK_S
            free_since = None
            while True:
                now = time.monotonic()
                passes = free_since is not None and now - free_since > _FREE_S
                share = place.take(self.most, passes)
                if share is not None:
                    return share
                if not shares.has_free(self.most):
                    free_since = None
                elif free_since is None:
                    free_since = now
                if _native.generation() != generation:
                    raise _native.Forked
                if has_come is not None and has_come():
                    return None
                left = apart if until is None else until - time.monotonic()
                if left <= 0:
                    raise Exhausted
                pause(min(apart, left))
                apart = min(apart * 1.5, _LAST_LOOK_S)
        finally:
            place.leave()

    def _shares(self) -> Shares:
        shares = budget_file.opened(self.path)
        other = shares.declare(self.most)
        if other is not None and not self._said_number:
            self._said_number = True
            _log.warning(
                "host_budget %r is %d in process %d and %d in process %d: give all the "
                "same number. Meanwhile the larger one bounds them together",
                *(self.name, self.most, os.getpid(), other[1], other[0]),
            )
        return shares

    def has_room(self) -> bool:
        """Tell whether a share is free, and nobody waits for one."""
        shares = budget_file.opened(self.path)
        return shares.has_free(self.most) and not shares.is_wanted(0.0)

    def is_wanted(self, age_s: float) -> bool:
        """Tell whether a caller, here or in another process, has waited longer.

        Args:
            age_s: Seconds.
        """
        return budget_file.opened(self.path).is_wanted(age_s)

    def parts(self) -> Parts:
        """Say which processes hold how many connections, and how many callers wait."""
        shares = budget_file.opened(self.path)
        return Parts(held=dict(shares.holders()), waiting=dict(shares.waiting()))

    def describe(self) -> str:
        """Say in words who has what, for a caller who got nothing."""
        parts = self.parts()
        named = [
            f"{count} by {_process(pid)}"
            for pid, count in list(parts.held.items())[:_NAMED]
        ]
        if len(parts.held) > _NAMED:
            rest = list(parts.held.values())[_NAMED:]
            named.append(f"{sum(rest)} by {len(rest)} more")
        waiting = sum(parts.waiting.values())
        return (
            f"the host budget {self.name!r} lets all processes of this host have "
            f"{self.most} connections together, and {sum(parts.held.values())} are "
            f"held: {', '.join(named) or 'none any more'}; {waiting} more callers wait "
            "for one. Return connections sooner, let processes keep fewer "
            "(pool_size, min_idle), or raise host_budget and what the server allows"
        )


def _process(pid: int) -> str:
    """Name a process for people."""
    if not pid:
        return "processes of another container"
    if pid == os.getpid():
        return f"this process ({pid})"
    try:
        name = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return f"process {pid}"
    printable = "".join(letter for letter in name if letter.isprintable())
    return f"process {pid} ({printable})"


_known: weakref.WeakValueDictionary[str, HostBudget] = weakref.WeakValueDictionary()
_pools: weakref.WeakSet[Disposable] = weakref.WeakSet()


def _give_back_all() -> None:
    until = time.monotonic() + _EXIT_S
    for pool in list(_pools):
        if time.monotonic() < until:
            with contextlib.suppress(Exception, KeyboardInterrupt):
                pool.dispose()
                pool.shares.settle(waits=True)


atexit.register(_give_back_all)
