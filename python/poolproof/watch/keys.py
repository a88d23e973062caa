"""Single keys from a terminal, without waiting for the end of a line."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import tty
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Keys", "keys"]

_MOST = 64


class Keys:
    """What is typed.

    Args:
        descriptor: Of the terminal; None where there is none.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def pressed(self, seconds: float) -> str:
        """Wait for keys.

        Args:
            seconds: How long at most.

        Returns:
            What was typed meanwhile; empty when nothing was. At the end of the terminal
            it is ``"q"``.
        """
        watched = [] if self._descriptor is None else [self._descriptor]
        ready, _, _ = select.select(watched, [], [], seconds)
        if not ready or self._descriptor is None:
            return ""
        return os.read(self._descriptor, _MOST).decode(errors="replace") or "q"


@contextlib.contextmanager
def keys() -> Iterator[Keys]:
    """Take single keys from standard input until the block ends.

    Ctrl-C stays a signal. The terminal is left as it was found, whatever ends it.
    """
    if not sys.stdin.isatty():
        yield Keys(None)
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield Keys(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
