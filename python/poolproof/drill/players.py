"""Processes and threads that act at once, and are ended when they hang.

A trial's own process stays a spectator. It forks players, or starts one in a
thread, lets all of them go in the same instant, and reads what each reports over a
pipe of its own. A player that reports nothing for too long hangs: a process is
killed by its id; a thread is given up, and the trial's process then ends itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

STALL_S: Final = 5.0
"""Seconds without a report after which a player hangs; a round takes 1–20 ms."""

BOUND_S: Final = 30.0
"""Seconds that a whole scene may last, however busy its players are."""

_SLICE_S: Final = 0.05
_VALUE_MAX: Final = 600  # characters; one report stays below PIPE_BUF, so it is whole


class Report:
    """A player's pen: each line reaches the spectator at once and whole."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def say(self, word: str, value: str = "") -> None:
        """Report one fact.

        Args:
            word: What happened, such as ``commit`` or ``error``.
            value: Of what; cut to 600 characters.
        """
        line = json.dumps([word, value[:_VALUE_MAX]]) + "\n"
        os.write(self._fd, line.encode())

    def error(self, error: BaseException) -> None:
        """Report an exception: its class and the first line of its message."""
        first = str(error).strip().splitlines()
        self.say("error", f"{type(error).__name__}: {first[0] if first else ''}")

    def close(self) -> None:
        """Tell the spectator that this player is done."""
        os.close(self._fd)


@dataclass(slots=True, eq=False)
class Player:
    """One who acts: what it said, and how it ended."""

    name: str
    pid: int | None
    _fd: int
    _errors_fd: int | None = None
    said: list[tuple[str, str]] = field(default_factory=list)
    stderr: bytes = b""
    hung: bool = False
    status: int | None = None
    _rest: bytes = b""
    _heard_at: float = field(default_factory=time.monotonic)

    def values(self, word: str) -> list[str]:
        """Return what was said under one word, in order."""
        return [value for said, value in self.said if said == word]


class Troupe:
    """The players of one scene; a context manager that leaves no process behind."""

    def __init__(self, *, stall_s: float = STALL_S, bound_s: float = BOUND_S) -> None:
        self.players: list[Player] = []
        self._stall_s = stall_s
        self._bound_s = bound_s
        self._go_read, self._go_write = os.pipe()
        self._open = True

    @property
    def hangs(self) -> int:
        """How many players had to be ended."""
        return sum(player.hung for player in self.players)

    @property
    def has_stuck_thread(self) -> bool:
        """Whether a thread hangs, so that this process must end when it has told."""
        return any(player.hung and player.pid is None for player in self.players)

    def fork(
        self, name: str, act: Callable[[Report], object], *, hear_stderr: bool = False
    ) -> Player:
        """Fork a player that waits for `watch` and then acts.

        Args:
            name: For messages.
            act: What it does; an exception that escapes is reported as an error.
            hear_stderr: Keep what it writes to standard error.

        Returns:
            The player, in the parent; the child never returns.
        """
        read, write = os.pipe()
        errors_read, errors_write = os.pipe() if hear_stderr else (None, None)
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            os.close(self._go_write)
            os.close(read)
            if errors_write is not None:
                os.dup2(errors_write, 2)
            self._play(Report(write), act)
        os.close(write)
        if errors_write is not None:
            os.close(errors_write)
        player = Player(name, pid, read, errors_read)
        self.players.append(player)
        return player

    def _play(self, report: Report, act: Callable[[Report], object]) -> NoReturn:
        """Be the child: wait, act, leave without the interpreter's farewell."""
        status = 1
        try:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
                signal.signal(number, signal.SIG_DFL)
            signal.alarm(int(self._bound_s) + 5)  # should the spectator be killed
            self._wait()
            status = _act(report, act)
        finally:
            os._exit(status)

    def thread(self, name: str, act: Callable[[Report], object]) -> Player:
        """Start a player in a thread of this process; it waits for `watch`."""
        read, write = os.pipe()
        report = Report(write)

        def play() -> None:
            self._wait()
            try:
                _act(report, act)
            finally:
                report.close()

        player = Player(name, None, read)
        self.players.append(player)
        threading.Thread(target=play, name=name, daemon=True).start()
        return player

    def _wait(self) -> None:
        """Block until `watch` closes the gate, which ends everybody's read at once."""
        os.read(self._go_read, 1)

    def watch(self) -> None:
        """Let the players go, and listen until each is done or ended."""
        os.close(self._go_write)
        self._open = False
        start = time.monotonic()
        for player in self.players:
            player._heard_at = start
        deadline = start + self._bound_s
        while listening := [p for p in self.players if p._fd >= 0]:
            self._listen(listening)
            now = time.monotonic()
            for player in listening:
                late = now - player._heard_at > self._stall_s or now > deadline
                if late and player._fd >= 0:
                    player.hung = True
                    self._end(player)

    def _listen(self, players: list[Player]) -> None:
        """Read what there is to read, for at most a slice of time."""
        owners = {player._fd: player for player in players}
        owners |= {p._errors_fd: p for p in players if p._errors_fd is not None}
        ready, _, _ = select.select(list(owners), [], [], _SLICE_S)
        for fd in ready:
            player = owners[fd]
            if fd not in (player._fd, player._errors_fd):
                continue  # closed a moment ago, with its player's end
            data = os.read(fd, 65536)
            if fd == player._errors_fd:
                player.stderr += data
                if not data:
                    os.close(fd)
                    player._errors_fd = None
            elif data:
                _hear(player, data)
            else:
                self._end(player)

    def _end(self, player: Player) -> None:
        """Close a player's pipe; kill it if it hangs, and reap its process."""
        os.close(player._fd)
        player._fd = -1
        if player.pid is None:
            return
        if player.hung:
            os.kill(player.pid, signal.SIGKILL)
        _, status = os.waitpid(player.pid, 0)
        player.status = os.waitstatus_to_exitcode(status)
        if player.status < 0 and not player.hung:
            player.said.append(("error", f"process died of signal {-player.status}"))
        if player._errors_fd is not None:
            os.set_blocking(player._errors_fd, False)
            with contextlib.suppress(BlockingIOError):
                while data := os.read(player._errors_fd, 65536):
                    player.stderr += data
            os.close(player._errors_fd)
            player._errors_fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for player in self.players:
            if player._fd >= 0:
                player.hung = True
                self._end(player)
        if self._open:
            os.close(self._go_write)
            self._open = False
        if not self.has_stuck_thread:
            os.close(self._go_read)


def _act(report: Report, act: Callable[[Report], object]) -> int:
    """Run one act; return an exit status."""
    try:
        act(report)
    except Exception as error:  # noqa: BLE001 (whatever escapes is what we count)
        report.error(error)
        return 1
    return 0


def _hear(player: Player, data: bytes) -> None:
    """Take in whole lines; keep the beginning of the next one."""
    player._heard_at = time.monotonic()
    *lines, player._rest = (player._rest + data).split(b"\n")
    for line in lines:
        word, value = json.loads(line)
        player.said.append((word, value))
