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

_DESCRIPTORS = "/proc/self/fd"

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
    own = set()
    others = False
    for loop in list(_met):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if loop.is_closed():
                continue
            selector = getattr(loop, "_selector", None)
            if isinstance(selector, kind):
                own.add(selector.fileno())
                _part(loop, selector)
            else:
                others = True
    if others:
        _renew_all_but(own)


def _renew(number: int) -> None:
    """Put a selector of the child's own in the place of one that is the parent's."""
    mine = select.epoll()
    try:
        os.dup2(mine.fileno(), number, inheritable=False)
    finally:
        mine.close()


def _renew_all_but(own: set[int]) -> None:
    """Renew the selectors of loops that do not say which they have: uvloop's.

    Such a loop hears of no descriptor in the child any more; its timers, and what is
    to be called soon, go on.

    Args:
        own: The numbers of those that were renewed.
    """
    with contextlib.suppress(OSError):  # no /proc
        for name in os.listdir(_DESCRIPTORS):  # noqa: PTH208 - a fork is in a hurry
            with contextlib.suppress(OSError):  # the number of this listing itself
                place = os.readlink(f"{_DESCRIPTORS}/{name}")  # noqa: PTH115 - so too
                if place == "anon_inode:[eventpoll]" and int(name) not in own:
                    _renew(int(name))


def _part(loop: Any, selector: Any) -> None:
    # The number stays, and with it all that the selector knows.
    _renew(selector.fileno())
    for key in list(selector.get_map().values()):
        with contextlib.suppress(OSError, KeyError):
            selector.unregister(key.fileobj)
            selector.register(key.fileobj, key.events, key.data)
    for step in ("_close_self_pipe", "_make_self_pipe"):
        getattr(loop, step)()
