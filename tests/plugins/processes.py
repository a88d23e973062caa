"""Runs a function in a forked child, or a script in a new process, in bounded time."""

from __future__ import annotations

import faulthandler
import gc
import json
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

SECONDS = 200.0
_LAST_WORDS = 5.0  # for the stacks of a child that hung
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
                    os.kill(self.pid, signal.SIGABRT)  # it says where it is
                    select.select([self._reading], [], [], _LAST_WORDS)
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


def said_in_fork(action: Callable[[], object], *, seconds: int = 60) -> str:
    """Fork, and return what *action* says in the child, where nothing else is done.

    Args:
        action: Called in the child; what it raises is said, too.
        seconds: How long the child may take.

    Returns:
        The text of what it returns; ``"hung"`` where it says nothing in time.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)  # ends a child that waits for ever
        try:
            said = str(action())
        except BaseException as error:
            said = repr(error)
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with open(read, "rb") as told:  # noqa: PTH123 - a descriptor
        said = told.read().decode()
    os.waitpid(pid, 0)
    return said or "hung"


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
        faulthandler.enable(2)
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
            except BaseException:
                report.error = traceback.format_exc()
            function = _nothing
            gc.collect()
        report.warnings = [f"{w.category.__name__}: {w.message}" for w in caught]
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(report, pipe)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _nothing() -> None:
    pass


class ScriptHost:
    """A process that imports once and then runs one script after the other.

    Each script sees the names of the prelude; the names that it makes are forgotten
    after it.  A script that hangs costs the process, which is replaced.

    Args:
        prelude: Source that is run once, before the first script.
        arguments: ``sys.argv[1:]`` of the process.
        warnings: What becomes of warnings, as ``python -W`` takes it.
    """

    def __init__(self, prelude: str, *arguments: str, warnings: str = "error") -> None:
        self._command = [
            *(sys.executable, *warn(warnings), "-c", _HOST + prelude + _SERVE),
            *arguments,
        ]
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start the process; it imports while the caller goes on."""
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, "PYTHONPATH": _path(), "PYTHONFAULTHANDLER": "1"},
        )

    def run(
        self, source: str, *, seconds: float = SECONDS, quiet: bool = True
    ) -> list[str]:
        """Run one script; return the words that it gave to ``answer``.

        Args:
            source: The script; common indentation is removed.
            seconds: How long it may take.
            quiet: Whether it must write nothing to its standard error.
        """
        if self._process is None or self._process.poll() is not None:
            self.start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        self._stderr.seek(0, os.SEEK_END)
        before = self._stderr.tell()
        process.stdin.write(json.dumps(textwrap.dedent(source)).encode() + b"\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], seconds)[0]:
            process.send_signal(signal.SIGABRT)  # faulthandler tells where it hangs
            process.wait()
            message = f"the script hung for {seconds} s:\n{self._noise(before)}"
            self._stop()
            self.start()  # now, so that the next test's leak check finds it there
            raise TimeoutError(message)
        line = process.stdout.readline()
        noise = self._noise(before)
        assert line, f"the process died:\n{noise}"
        answer = json.loads(line)
        assert not answer["error"], answer["error"] + noise
        assert not (quiet and noise), noise
        words: list[str] = answer["words"]
        return words

    def close(self) -> None:
        """End the process."""
        self._stop()
        self._stderr.close()

    def _stop(self) -> None:
        if self._process is None:
            return
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _noise(self, since: int) -> str:
        self._stderr.seek(since)
        return self._stderr.read().decode(errors="replace")


_HOST = """
import json as _json, os as _os, sys as _sys, traceback as _traceback
_replies = _os.fdopen(_os.dup(1), "w", buffering=1)
_os.dup2(2, 1)
"""
_SERVE = """
_words = []
def answer(*words):
    _words.extend(map(str, words))
_kept = set(globals()) | {"_line", "_reply", "_kept", "_name"}
for _line in _sys.stdin:
    _reply = {"error": "", "words": _words}
    try:
        exec(compile(_json.loads(_line), "<script>", "exec"), globals())
    except BaseException:
        _reply["error"] = _traceback.format_exc()
    for _name in set(globals()) - _kept:
        del globals()[_name]
    _replies.write(_json.dumps(_reply) + "\\n")
    _words.clear()
"""


def _path() -> str:
    return os.pathsep.join(filter(None, [str(_TESTS), os.environ.get("PYTHONPATH")]))


def warn(what: str) -> tuple[str, ...]:
    """Say what becomes of warnings, but for the one of forks beside threads.

    Where warnings are errors, Python 3.15 lets that one out of `os.fork`.

    Args:
        what: As ``python -W`` takes it.
    """
    return ("-W", what, "-W", "ignore:This process:DeprecationWarning")


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
        [sys.executable, *warn(warnings), "-c", textwrap.dedent(source), *arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        env={**os.environ, "PYTHONPATH": _path(), "PYTHONFAULTHANDLER": "1"},
    )
