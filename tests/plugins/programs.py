"""Runs a program that makes processes, and reads the lines of JSON that they tell."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import URL


class Told:
    """What a program and all its processes have told, when they have ended.

    Args:
        program: The script, which finds database, table and pool in its environment.
        arguments: Of the script.
        url: The database.
        table: A table with one column of integers.
        pool: ``poolproof`` or ``queue``.
        seconds: How long it may take; then all its processes are ended.
        until: Looks at each line; when it says so, the program is ended.

    Attributes:
        hung: Whether it took too long.
        status: Its exit status.
        noise: What it wrote to its standard error.
    """

    def __init__(
        self,
        program: Path,
        *arguments: str,
        url: URL,
        table: str,
        pool: str = "poolproof",
        seconds: float = 200.0,
        until: Callable[[dict[str, Any]], object] = lambda _: False,
    ) -> None:
        self.lines: list[dict[str, Any]] = []
        self.hung = False
        with tempfile.TemporaryFile() as noise:
            self._process = subprocess.Popen(
                [sys.executable, str(program), *arguments],
                stdout=subprocess.PIPE,
                stderr=noise,
                start_new_session=True,
                env={
                    **os.environ,
                    "TEST_URL": url.render_as_string(hide_password=False),
                    "TEST_TABLE": table,
                    "TEST_POOL": pool,
                },
            )
            timer = threading.Timer(seconds, self._give_up)
            timer.start()
            try:
                self._read(until)
                self.status = self._process.wait()
            finally:
                timer.cancel()
                timer.join()
                self._kill()
                self._process.wait()
            noise.seek(0)
            self.noise = noise.read().decode(errors="replace")

    def _read(self, until: Callable[[dict[str, Any]], object]) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self.lines.append(json.loads(line))
                if until(self.lines[-1]):
                    self._kill()
                    return

    def _give_up(self) -> None:
        self.hung = True
        self._kill()

    def _kill(self) -> None:
        """End what is left of its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def all(self, fact: str) -> list[Any]:
        """Return what all processes have told of something."""
        return [one for line in self.lines for one in line.get(fact, ())]
