"""A service that runs in processes of its own, for the rows that let one work.

Its processes take the trial's stage over from a file that the environment names, so
that the database's password stands in neither. What the service told its clients is
written in a `Book`; in the end the book is held against the database.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from poolproof.drill.errors import SetupError
from poolproof.drill.incident import Measure, Outcome
from poolproof.drill.pace import is_over
from poolproof.drill.stage import Stage
from poolproof.drill.target import Target
from poolproof.drill.traffic import pick, texts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from typing_extensions import Self

_VARIABLE: Final = "POOLPROOF_DRILL_STAGE"
_LOOK_S: Final = 0.02
_LEAVE_S: Final = 5.0
# An integration may put the task's name behind the stage's.
_SESSIONS: Final = text(
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE application_name = :tag OR starts_with(application_name, :tag || ' ')"
)


@dataclass(slots=True, kw_only=True)
class Book:
    """What a service told its clients, one entry for each piece of work."""

    committed: list[str] = field(default_factory=list)
    """Ids of rows that were reported as committed."""

    never: list[str] = field(default_factory=list)
    """Ids of rows that were reported as rolled back, or that nobody asked for."""

    wrong: list[str] = field(default_factory=list)
    """Answers to somebody else's question, in words."""

    failed: list[str] = field(default_factory=list)
    """Errors of pieces of work that should have gone well."""

    unknown: list[str] = field(default_factory=list)
    """Ids of rows of which nobody said what became: neither lost nor too many."""

    hangs: int = 0
    """Pieces of work that nothing was heard of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceOutcome(Outcome):
    """What a service did to its clients and to its server."""

    asked: int
    failed: int
    wrong: int
    lost: int
    ghosts: int
    unknown: int
    hangs: int
    sessions: int
    beyond: int
    left: int


MEASURES: Final = (
    Measure("asked", "pieces of work", more_is_right=True),
    Measure("failed", "that failed", is_fault=True),
    Measure("wrong", "wrong results", is_fault=True),
    Measure("lost", "lost commits", is_fault=True),
    Measure("ghosts", "uncommitted rows kept", is_fault=True),
    Measure("unknown", "cut off, and unknown"),
    Measure("hangs", "hangs", is_fault=True),
    Measure("sessions", "sessions at most", over="worst"),
    Measure("beyond", "sessions beyond what the pools may have", is_fault=True),
    Measure("left", "sessions left after the stop", is_fault=True),
)


def settle(stage: Stage, book: Book, crowd: Crowd, *, allowed: int) -> ServiceOutcome:
    """Hold the book against the database, when the service has stopped.

    Args:
        stage: The trial's stage.
        book: What the clients were told.
        crowd: The sessions that were seen meanwhile.
        allowed: How many sessions the service may have had: its processes times what
            a pool of it may open.
    """
    left = crowd.left()
    present = stage.present([*book.committed, *book.never])
    kinds = (book.committed, book.never, book.failed, book.unknown)
    return ServiceOutcome(
        asked=sum(map(len, kinds)) + book.hangs,
        failed=len(book.failed),
        wrong=len(book.wrong),
        lost=sum(one not in present for one in book.committed),
        ghosts=sum(one in present for one in book.never),
        unknown=len(book.unknown),
        hangs=book.hangs,
        sessions=crowd.most,
        beyond=max(0, crowd.most - allowed),
        left=left,
        samples=pick(book.wrong, book.failed),
        heard=texts(map(_said, book.failed)),
    )


def _said(line: str) -> str:
    """Return what a piece of work that failed was told, without which piece it was."""
    words = line.partition(": ")[2].strip().splitlines() or [line]
    return "500, Gunicorn's own page" if "<html>" in words[0] else words[0]


class Crowd:
    """Counts the service's sessions for as long as the block lasts."""

    def __init__(self, stage: Stage) -> None:
        self.most = 0
        self._tag = stage.tag
        self._witness = stage.witness()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._count, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _count(self) -> None:
        """Look again and again, over one connection."""
        with self._witness.connect() as connection:
            while not self._over.wait(_LOOK_S):
                count = connection.execute(_SESSIONS, {"tag": self._tag}).scalar_one()
                connection.rollback()
                self.most = max(self.most, count)

    def left(self) -> int:
        """Return how many sessions stay, however long one waits (5 s)."""
        since = time.monotonic()
        with self._witness.connect() as connection:
            while True:
                count = connection.execute(_SESSIONS, {"tag": self._tag}).scalar_one()
                connection.rollback()
                if not count or is_over(since, _LEAVE_S):
                    return int(count)
                time.sleep(_LOOK_S)


# Ends the program's processes when this one is killed outright: that closes the pipe.
_GUARDIAN: Final = """\
import os, signal, sys
if not sys.stdin.read():
    os.killpg(int(sys.argv[1]), signal.SIGKILL)
"""


@contextlib.contextmanager
def guarded(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Have a process's group killed when this process is killed within the block.

    Args:
        process: It leads a group.
    """
    guardian = subprocess.Popen(  # noqa: S603 (our own words)
        [sys.executable, "-ISc", _GUARDIAN, str(process.pid)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield
    finally:
        with contextlib.suppress(BrokenPipeError):
            guardian.communicate(b"done")


class Service:
    """A program and its processes, ended with the block, whatever happens.

    Args:
        command: The program and its arguments.
        stage: What it takes over with `taken_over`.
        environment: Variables beside those of this process.
        cwd: Where it runs; None: here.
        pass_fds: Descriptors that it inherits.
    """

    def __init__(
        self,
        command: Sequence[str],
        stage: Stage,
        *,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        pass_fds: Collection[int] = (),
    ) -> None:
        self._command = command
        self._stage = stage
        self._environment = environment or {}
        self._cwd = cwd
        self._pass_fds = pass_fds
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            handed_over = folder / "stage.json"
            handed_over.write_text(_dump(self._stage))
            self._log = folder / "log"
            output = stack.enter_context(self._log.open("wb"))
            self.process = subprocess.Popen(  # noqa: S603 (our own program)
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._cwd,
                env={**os.environ, **self._environment, _VARIABLE: str(handed_over)},
                start_new_session=True,
                pass_fds=self._pass_fds,
            )
            stack.callback(self._kill)
            stack.enter_context(guarded(self.process))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _kill(self) -> None:
        """End what is left of the program's processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def log(self) -> str:
        """Return what the program and its processes have written."""
        return self._log.read_text(errors="replace")

    def await_start(self, is_up: Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait until the service works.

        Args:
            is_up: Tells whether it does.
            seconds: How long to wait.

        Raises:
            SetupError: It ended, or did not start in time.
        """
        since = time.monotonic()
        while not is_up():
            if self.process.poll() is not None or is_over(since, seconds):
                last = self.log().strip().splitlines()[-1:] or ["it said nothing"]
                raise SetupError(f"{self._command[0]} did not start: {last[0]}")
            time.sleep(_LOOK_S)

    def stop(self, seconds: float = 20.0) -> bool:
        """Ask the program to end, and tell whether it did in time.

        Args:
            seconds: How long to wait for it.
        """
        self.process.terminate()
        since = time.monotonic()
        while self.process.poll() is None:
            if is_over(since, seconds):
                return False
            time.sleep(_LOOK_S)
        return True


def _dump(stage: Stage) -> str:
    fields = ("driver", "pool", "table", "seed", "trial", "incident")
    return json.dumps(
        {name: getattr(stage, name) for name in fields}
        | {"target": stage.target.render()}
    )


def taken_over() -> Stage:
    """Return the stage on which this process of a service plays.

    Raises:
        SetupError: This process is not of a drilled service.
    """
    if (path := os.environ.get(_VARIABLE)) is None:
        raise SetupError(f"no drill has started this process: {_VARIABLE} is not set")
    fields = json.loads(Path(path).read_text())
    return Stage(**{**fields, "target": Target.parse(fields["target"])})


def lacks(module: str, extra: str) -> Callable[[], str | None]:
    """Make the answer to what is missing here, where a framework may be.

    Args:
        module: What has to be importable.
        extra: The extra that installs it.
    """

    def answer() -> str | None:
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed (poolproof's extra {extra!r} brings it)"
        return None

    return answer
