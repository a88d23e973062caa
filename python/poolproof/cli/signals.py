"""Ctrl-C and its kin: the first ends the work, and no second disturbs the clean-up."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FINAL: Final = 3


class Stopped(BaseException):
    """A signal asked the program to end; no `except Exception` may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def name(self) -> str:
        """What people call the signal."""
        is_ctrl_c = self.number == signal.SIGINT
        return "Ctrl-C" if is_ctrl_c else signal.Signals(self.number).name

    @property
    def status(self) -> int:
        """The exit status that shells give to such an end."""
        return 128 + self.number


class Stop:
    """What signals have asked for so far.

    The first raises `Stopped` where the work `may_end`, and is kept for later where it
    may not: a clean-up runs to its end. The second is answered with words, and the
    third ends the process at once.
    """

    def __init__(self) -> None:
        self._count = 0
        self._number = 0
        self._may_end = False

    def hear(self, number: int, _frame: FrameType | None) -> None:
        """Be the handler."""
        self._count += 1
        if self._count == 1:
            self._number = number
            if self._may_end:
                raise Stopped(number)
        elif self._count < _FINAL:
            _say(
                "still cleaning up; once more ends it at once and leaves things behind"
            )
        else:
            _say("ended before everything was cleaned up")
            os._exit(128 + number)

    @contextmanager
    def may_end(self) -> Iterator[None]:
        """Let a signal end the block, or one that came before it.

        Raises:
            Stopped: There was one.
        """
        self._may_end = True
        self.check()
        try:
            yield
        finally:
            self._may_end = False

    def check(self) -> None:
        """Raise `Stopped` if a signal came where nothing may end."""
        if self._number:
            raise Stopped(self._number)


def _say(words: str) -> None:
    """Write a line from within a handler, where no stream may be touched."""
    os.write(2, f"\npoolproof: {words}\n".encode())


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Take the signals over until the block ends, and then give them back.

    A signal that was ignored already (``nohup``) stays ignored; but not Ctrl-C, which
    a shell has its background jobs ignore, and which somebody sends on purpose.
    """
    stop = Stop()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN or number == signal.SIGINT:
            signal.signal(number, stop.hear)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
