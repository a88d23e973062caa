"""One who acts in a scene: a forked process or a thread, and the pipe it reports on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import threading

_VALUE_MAX: Final = 600  # characters; one report stays below PIPE_BUF, so it is whole
_CHUNK: Final = 65536


def first_line(error: BaseException) -> str:
    """Return an exception's class and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


class Report:
    """A player's pen: each line reaches the spectator at once and whole."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def say(self, word: str, value: str = "") -> None:
        """Report one fact.

        Args:
            word: What happened, such as ``committed`` or ``error``.
            value: Of what; cut to 600 characters.

        Raises:
            BrokenPipeError: The spectator has given this player up.
        """
        line = json.dumps([word, value[:_VALUE_MAX]]) + "\n"
        os.write(self._fd, line.encode())

    def error(self, error: BaseException) -> None:
        """Report an exception: its class and the first line of its message."""
        self.say("error", first_line(error))

    def close(self) -> None:
        """Tell the spectator that this player is done."""
        os.close(self._fd)


@dataclass(slots=True, eq=False)
class Player:
    """What the spectator knows of one who acts, and how it ended.

    Either *pid* or *thread* is set. The spectator's descriptors are None once closed.
    """

    name: str
    reports: int | None
    errors: int | None = None
    pid: int | None = None
    thread: threading.Thread | None = None
    said: list[tuple[str, str]] = field(default_factory=list)
    stderr: bytes = b""
    hung: bool = False
    status: int | None = None
    heard_at: float = field(default_factory=time.monotonic)
    rest: bytes = b""

    @property
    def is_done(self) -> bool:
        """Whether it acts no longer, or is not listened to any longer."""
        return self.reports is None

    def values(self, word: str) -> list[str]:
        """Return what was said under one word, in order."""
        return [value for said, value in self.said if said == word]

    def listen(self, fd: int) -> None:
        """Take in what can be read from one of the two descriptors."""
        if fd == self.errors:
            self._listen_to_errors()
        elif fd == self.reports:
            data = os.read(fd, _CHUNK)
            if not data:
                self.end()
                return
            self.heard_at = time.monotonic()
            *lines, self.rest = (self.rest + data).split(b"\n")
            for line in lines:
                word, value = json.loads(line)
                self.said.append((word, value))

    def _listen_to_errors(self) -> None:
        """Take in a piece of standard error; close it at its end."""
        if self.errors is None:
            return
        data = os.read(self.errors, _CHUNK)
        self.stderr += data
        if not data:
            os.close(self.errors)
            self.errors = None

    def end(self, *, hung: bool = False) -> None:
        """Stop listening; a process that hangs is killed, and each is reaped.

        Args:
            hung: It did not end by itself.
        """
        if self.reports is None:
            return
        os.close(self.reports)
        self.reports = None
        self.hung = hung
        if self.pid is None:
            return
        if hung:
            os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        self.status = os.waitstatus_to_exitcode(status)
        if self.status < 0 and not hung:
            self.said.append(("error", f"process died of signal {-self.status}"))
        if self.errors is not None:
            os.set_blocking(self.errors, False)
            with contextlib.suppress(BlockingIOError):
                while self.errors is not None:
                    self._listen_to_errors()
        if self.errors is not None:  # a grandchild still has it open
            os.close(self.errors)
            self.errors = None
