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
    for loop in list(_met):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            _part(loop)


def _part(loop: Any) -> None:
    selector = getattr(loop, "_selector", None)
    kind = getattr(selectors, "EpollSelector", None)
    if loop.is_closed() or kind is None or not isinstance(selector, kind):
        return  # uvloop does so by itself
    mine = select.epoll()
    try:
        # The number stays, and with it all that the selector knows.
        os.dup2(mine.fileno(), selector.fileno(), inheritable=False)
    finally:
        mine.close()
    for key in list(selector.get_map().values()):
        with contextlib.suppress(OSError, KeyError):
            selector.unregister(key.fileobj)
            selector.register(key.fileobj, key.events, key.data)
    for step in ("_close_self_pipe", "_make_self_pipe"):
        getattr(loop, step)()
