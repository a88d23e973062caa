"""Processes and threads that act at once, and are ended when they hang.

A trial's own process stays a spectator. It forks players, or starts one in a
thread, lets all of them go in the same instant, and reads what each reports over a
pipe of its own. A player that reports nothing for too long hangs: a process is
killed by its id; a thread is given up, and the trial's process then ends itself.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Final, NoReturn

from poolproof.drill.pace import is_over
from poolproof.drill.player import Player, Report

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

STALL_S: Final = 5.0
"""Seconds without a report that are a hang; a request reports each of its steps."""

SILENT_S: Final = 2.0
"""The same, when the server does nothing for it either: no answer is on its way."""

BOUND_S: Final = 30.0
"""Seconds that a whole scene may last, however busy its players are."""

_SLICE_S: Final = 0.05
_LATE_S: Final = 20
_OVERTIME: Final = 4  # times the bound, which a busy machine stretches


class Troupe:
    """The players of one scene; a context manager that leaves no process behind."""

    def __init__(
        self,
        *,
        is_idle: Callable[[], bool] | None = None,
        silent_s: float = SILENT_S,
        stall_s: float = STALL_S,
        bound_s: float = BOUND_S,
    ) -> None:
        """Prepare a scene.

        Args:
            is_idle: Tells whether the server has nothing to do for the players; with
                it a hang is found after *silent_s*, without it after *stall_s*.
            silent_s: Seconds of silence that are a hang when `is_idle`, > 0.
            stall_s: Seconds of silence that are a hang in any case, ≥ *silent_s*.
            bound_s: Seconds that the scene may last, ≥ *stall_s*.
        """
        self.players: list[Player] = []
        self._is_idle = is_idle
        self._silent_s = silent_s
        self._stall_s = stall_s
        self._bound_s = bound_s
        self._asked_at = 0.0
        self._go_read, self._go_write = os.pipe()
        self._waiting = True

    @property
    def hangs(self) -> int:
        """How many players had to be ended."""
        return sum(player.hung for player in self.players)

    @property
    def has_stuck_thread(self) -> bool:
        """Whether a thread hangs, so that this process must end when it has told."""
        return any(
            player.hung and player.thread is not None and player.thread.is_alive()
            for player in self.players
        )

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
            self._play(Report(write), act, read, errors_write)
        os.close(write)
        if errors_write is not None:
            os.close(errors_write)
        player = Player(name, read, errors_read, pid=pid)
        self.players.append(player)
        return player

    def _play(
        self,
        report: Report,
        act: Callable[[Report], object],
        read: int,
        errors_write: int | None,
    ) -> NoReturn:
        """Be the child: wait, act, leave without the interpreter's farewell."""
        status = 1
        try:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
                signal.signal(number, signal.SIG_DFL)
            # If the spectator dies; one that lives, and is late, must come first.
            signal.alarm(_LATE_S + int(_OVERTIME * self._bound_s))
            os.close(self._go_write)
            os.close(read)
            if errors_write is not None:
                os.dup2(errors_write, 2)
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

        thread = threading.Thread(target=play, name=name, daemon=True)
        player = Player(name, read, thread=thread)
        self.players.append(player)
        thread.start()
        return player

    def join(self, timeout_s: float) -> None:
        """Give hanging threads, freed by now, so many seconds to end."""
        deadline = time.monotonic() + timeout_s
        for player in self.players:
            if player.thread is not None:
                player.thread.join(max(0.0, deadline - time.monotonic()))

    def _wait(self) -> None:
        """Block until the gate is closed, which ends everybody's read at once."""
        os.read(self._go_read, 1)

    def _go(self) -> None:
        """Close the gate; does nothing a second time."""
        if self._waiting:
            self._waiting = False
            os.close(self._go_write)

    def watch(self) -> None:
        """Let the players go, and listen until each is done or ended."""
        self._go()
        start = time.monotonic()
        for player in self.players:
            player.heard_at = start
        while acting := [player for player in self.players if not player.is_done]:
            self._listen(acting)
            silent = [p for p in acting if is_over(p.heard_at, self._silent_s)]
            idle = bool(silent) and self._ask_idle()
            for player in acting:
                stalls = is_over(player.heard_at, self._stall_s)
                ends = stalls or is_over(start, self._bound_s)
                if ends or (idle and player in silent):
                    player.end(hung=True)

    def _ask_idle(self) -> bool:
        """Ask whether the server rests, not much more often than it can change."""
        now = time.monotonic()
        if self._is_idle is None or now - self._asked_at < self._silent_s / 5:
            return False
        self._asked_at = now
        return self._is_idle()

    @staticmethod
    def _listen(players: list[Player]) -> None:
        """Read what there is to read, for at most a slice of time."""
        owners = {p.reports: p for p in players} | {p.errors: p for p in players}
        fds = [fd for fd in owners if fd is not None]
        ready, _, _ = select.select(fds, [], [], _SLICE_S)
        for fd in ready:
            owners[fd].listen(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for player in self.players:
            player.end(hung=True)  # only those that are still listened to
        self._go()
        if not self.has_stuck_thread:
            os.close(self._go_read)


def _act(report: Report, act: Callable[[Report], object]) -> int:
    """Run one act; return an exit status."""
    try:
        act(report)
    except BrokenPipeError:
        return 1  # given up as hanging: nobody listens any more
    except Exception as error:  # noqa: BLE001 (whatever escapes is what we count)
        report.error(error)
        return 1
    return 0
