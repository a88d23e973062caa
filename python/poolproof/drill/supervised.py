"""The near end of a supervisor: a server that lasts as long as this object.

A supervisor process owns the server (see `poolproof.drill.supervisor`): it stops the
server and removes its directory when this object is stopped *or* its process dies.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from poolproof.drill.errors import SetupError
from poolproof.drill.started import Started

if TYPE_CHECKING:
    from typing_extensions import Self

_ANSWER_S: Final = 120.0
_STOP_S: Final = 20.0
# The server may run as nobody, whose processes' environment others can read: no URL,
# no PGPASSWORD, and nothing else that is not known to be needed.
_PASSED_ON: Final = ("PATH", "TMPDIR", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")


class Supervised(Started):
    """A server that a supervisor owns; a context manager.

    Args:
        name: What people call it, for messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._supervisor: subprocess.Popen[str] | None = None
        self._facts: dict[str, Any] = {}

    def order(self) -> dict[str, Any]:
        """Return the supervisor's order: what to start.

        Raises:
            SetupError: Its programs are not there.
        """
        raise NotImplementedError

    def start(self) -> Self:
        """Start the server and wait until it takes connections.

        Raises:
            SetupError: Its programs are missing, or it did not come up.
        """
        order = self.order()
        supervisor = Path(__file__).with_name("supervisor.py")
        self._supervisor = subprocess.Popen(  # noqa: S603 (our own file)
            [sys.executable, "-I", str(supervisor)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            start_new_session=True,
        )
        try:
            self._facts = self.ask(order)
        except BaseException:
            self.stop()
            raise
        return self

    def ask(self, line: dict[str, Any]) -> dict[str, Any]:
        """Send the supervisor one line and return its answer.

        Raises:
            SetupError: It could not do what was asked, or does not answer.
        """
        supervisor = self._supervisor
        if supervisor is None or supervisor.stdin is None or supervisor.stdout is None:
            raise SetupError(f"{self.name} was not started")
        try:
            supervisor.stdin.write(json.dumps(line) + "\n")
            supervisor.stdin.flush()
        except BrokenPipeError:
            raise SetupError(f"{self.name}: its supervisor is gone") from None
        ready, _, _ = select.select([supervisor.stdout], [], [], _ANSWER_S)
        text = supervisor.stdout.readline() if ready else ""
        answer: dict[str, Any] = json.loads(text or "{}")
        if not answer:
            answer["error"] = f"no answer from its supervisor within {_ANSWER_S:.0f} s"
        if "error" in answer:
            raise SetupError(f"{self.name} cannot run: {answer['error']}")
        return answer

    @property
    def facts(self) -> dict[str, Any]:
        """What the supervisor said when the server was up.

        Raises:
            SetupError: It is not.
        """
        if not self._facts:
            raise SetupError(f"{self.name} was not started")
        return self._facts

    @property
    def port(self) -> int:
        """The loopback port where it listens."""
        port: int = self.facts["port"]
        return port

    @property
    def directory(self) -> Path:
        """Where its files lie; also the directory of its unix socket."""
        return Path(self.facts["directory"])

    def log(self) -> str:
        """Return what the server wrote to its log so far."""
        return (self.directory / "log").read_text(errors="replace")

    def stop(self) -> None:
        """Stop the server and remove its directory; does nothing a second time."""
        supervisor, self._supervisor, self._facts = self._supervisor, None, {}
        if supervisor is None:
            return
        if supervisor.stdin is not None:
            supervisor.stdin.close()
        try:
            supervisor.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            supervisor.kill()
            supervisor.wait()
        if supervisor.stdout is not None:
            supervisor.stdout.close()
