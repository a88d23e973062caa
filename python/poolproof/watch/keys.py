"""Single keys from a terminal, without waiting for the end of a line."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import tty
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SUSPEND", "Keys", "keys"]

SUSPEND = "\x1a"
"""Ctrl-Z, which is a key here: the screen is to be left before the process stops."""

_MOST = 64
_CHARACTERS = 6  # where `termios` has them among the settings


class Keys:
    """What is typed.

    Args:
        descriptor: Of the terminal; None where there is none.
        before: Its settings, as `termios` has them.
    """

    def __init__(self, descriptor: int | None, before: list[Any] | None = None) -> None:
        self._descriptor = descriptor
        self._before = before

    def take(self) -> None:
        """Have the terminal give single keys, and Ctrl-Z as one of them."""
        if self._descriptor is None:
            return
        tty.setcbreak(self._descriptor)
        now = termios.tcgetattr(self._descriptor)
        now[_CHARACTERS][termios.VSUSP] = b"\0"
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, now)

    def give_back(self) -> None:
        """Leave the terminal as it was found."""
        if self._descriptor is not None and self._before is not None:
            with contextlib.suppress(termios.error):  # it was hung up
                termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

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
        try:
            typed = os.read(self._descriptor, _MOST)
        except OSError:  # the terminal was hung up
            return "q"
        return typed.decode(errors="replace") or "q"

    def suspend(self) -> None:
        """Stop this process and its group, as Ctrl-Z does, until it is continued."""
        self.give_back()
        os.kill(0, signal.SIGTSTP)
        self.take()

    @property
    def are_there(self) -> bool:
        """Whether there is a keyboard."""
        return self._descriptor is not None


@contextlib.contextmanager
def keys() -> Iterator[Keys]:
    """Take single keys from standard input until the block ends.

    Ctrl-C stays a signal. The terminal is left as it was found, whatever ends it.
    """
    # A program that was started without standard input has None for it.
    if sys.stdin is None or sys.stdin.closed or not sys.stdin.isatty():
        yield Keys(None)
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    found = Keys(descriptor, before)
    try:
        found.take()
        yield found
    finally:
        found.give_back()
