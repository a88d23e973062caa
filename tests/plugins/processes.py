"""Runs a function in a forked child, or a script in a new process, with a time bound."""

from __future__ import annotations

import gc
import logging
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 20.0
_TESTS = Path(__file__).parent.parent


@dataclass
class ChildReport:
    """What a forked child did.

    Attributes:
        result: What its function returned.
        error: What its function raised, as text with the traceback; empty when it
            returned.
        log: Its log records, each ``"<logger>: <message>"``, from WARNING on.
        warnings: Its warnings, each ``"<category>: <message>"``.
        unraisable: Errors in finalizers.
        stderr: What it wrote to its standard error, at any level.
        seconds: How long it took.
    """

    result: Any = None
    error: str = ""
    log: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unraisable: list[str] = field(default_factory=list)
    stderr: str = ""
    seconds: float = 0.0

    def assert_silent(self) -> ChildReport:
        """Assert that the child raised, logged, warned and wrote nothing."""
        assert not self.error, self.error
        noise = [*self.log, *self.warnings, *self.unraisable]
        assert not noise, noise
        assert not self.stderr, self.stderr
        return self


class ForkedChild:
    """A child that runs one function and reports.

    Args:
        function: Called in the child; what it returns must be picklable.
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by report()
        self._reading, writing = os.pipe()
        self._started = time.monotonic()
        with warnings.catch_warnings():
            # Python 3.12 warns of a fork beside threads: that is what is tested.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            _be_the_child(function, writing, self._stderr.fileno())
        os.close(writing)

    def report(self, seconds: float = SECONDS) -> ChildReport:
        """Return what the child did; end it when it takes too long.

        Args:
            seconds: How long it may take from now.

        Raises:
            TimeoutError: The child hung and was ended; its standard error is told.
        """
        deadline = time.monotonic() + seconds
        received = bytearray()
        try:
            while True:
                left = max(0.0, deadline - time.monotonic())
                if not select.select([self._reading], [], [], left)[0]:
                    os.kill(self.pid, signal.SIGKILL)
                    message = f"the child hung for {seconds} s: {self._read_stderr()}"
                    raise TimeoutError(message)
                if not (chunk := os.read(self._reading, 65536)):
                    break
                received += chunk
        finally:
            os.close(self._reading)
            _, status = os.waitpid(self.pid, 0)
            stderr = self._read_stderr()
            self._stderr.close()
        if not received:
            message = f"the child died with status {status}: {stderr}"
            raise ChildProcessError(message)
        report: ChildReport = pickle.loads(received)
        report.stderr = stderr
        report.seconds = time.monotonic() - self._started
        return report

    def _read_stderr(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace")


def run_in_fork(
    function: Callable[[], Any], *, seconds: float = SECONDS
) -> ChildReport:
    """Fork, run *function* in the child, and return what it did.

    Args:
        function: Called in the child; what it returns must be picklable.
        seconds: How long the child may take.
    """
    return ForkedChild(function).report(seconds)


class _Collector(logging.Handler):
    def __init__(self, into: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._into = into

    def emit(self, record: logging.LogRecord) -> None:
        text = f"{record.name}: {record.getMessage()}"
        if record.exc_info and record.exc_info[1] is not None:
            text += f" ({record.exc_info[1]!r})"
        self._into.append(text)


def _be_the_child(function: Callable[[], Any], writing: int, stderr: int) -> None:
    status = 1
    try:
        os.dup2(stderr, 2)
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
        report = ChildReport()
        root = logging.getLogger()
        root.handlers[:] = [_Collector(report.log)]
        sys.unraisablehook = lambda args: report.unraisable.append(
            f"{args.exc_value!r} in {args.object!r}"
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                report.result = function()
            except BaseException:  # noqa: BLE001 - reported to the parent
                report.error = traceback.format_exc()
            function = _nothing
            gc.collect()
        report.warnings = [f"{w.category.__name__}: {w.message}" for w in caught]
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(report, pipe)
        status = 0
    except BaseException:  # noqa: BLE001 - the status tells the parent
        traceback.print_exc()
    finally:
        os._exit(status)


def _nothing() -> None:
    pass


def run_script(
    source: str, *arguments: str, seconds: float = SECONDS, warnings: str = "error"
) -> subprocess.CompletedProcess[str]:
    """Run Python source in a new process that can import the tests' plugins.

    Args:
        source: The script; common indentation is removed.
        arguments: Its ``sys.argv[1:]``.
        seconds: How long it may take.
        warnings: What becomes of warnings, as ``python -W`` takes it.
    """
    return subprocess.run(
        [sys.executable, "-W", warnings, "-c", textwrap.dedent(source), *arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        env={**os.environ, "PYTHONPATH": str(_TESTS), "PYTHONFAULTHANDLER": "1"},
    )
