"""The loops of asyncio that came over a fork.

A selector on epoll is one object of the kernel's for parent and child: what a child
takes out of its copy is taken out of the parent's, whose loop then hears of it no more.
So does the pipe that wakes the loop, which both would read from. A child that goes on
in such a loop, or merely closes it, would stop its parent.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

__all__ = ["meet", "part_all"]

_met: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()


def meet(loop: asyncio.AbstractEventLoop) -> None:
    """Have a loop parted from its parent's in children.

    Args:
        loop: A loop that a pool's connection belongs to.
    """
    _met.add(loop)


def part_all() -> None:
    """In a child, before anything goes on: give each loop a selector of its own."""
    kind = getattr(selectors, "EpollSelector", None)
    if kind is None:
        return
    for loop in list(_met):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if loop.is_closed():
                continue
            selector = getattr(loop, "_selector", None)
            if isinstance(selector, kind):
                _part(loop, selector)
            elif (number_of := getattr(loop, "_get_backend_id", None)) is not None:
                # uvloop's, which keeps to itself what it watches: it hears of no
                # descriptor in the child any more. Its timers, and what is to be
                # called soon, go on.
                _renew(number_of())


def _renew(number: int) -> None:
    """Put a selector of the child's own in the place of one that is the parent's."""
    mine = select.epoll()
    try:
        os.dup2(mine.fileno(), number, inheritable=False)
    finally:
        mine.close()


def _part(loop: Any, selector: Any) -> None:
    # The number stays, and with it all that the selector knows.
    _renew(selector.fileno())
    for key in list(selector.get_map().values()):
        with contextlib.suppress(OSError, KeyError):
            selector.unregister(key.fileobj)
            selector.register(key.fileobj, key.events, key.data)
    for step in ("_close_self_pipe", "_make_self_pipe"):
        getattr(loop, step)()
