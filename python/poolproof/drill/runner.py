"""Play every cell of the drill, each batch of trials in a process of its own.

A few batches run side by side; an incident that measures time runs alone, or
beside others that only wait. The
caller reads events from `Runner.run`, and may leave at any moment: every process
that was started is ended and reaped before the generator is closed.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from poolproof._log import printable
from poolproof.drill.errors import SetupError
from poolproof.drill.pace import is_over
from poolproof.drill.tally import Cell, Row
from poolproof.drill.trial import Order

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from poolproof.drill.incidents import Incident
    from poolproof.drill.target import Target

_POLL_S: Final = 0.1
_GRACE_S: Final = 2.0
_SLICE_S: Final = 0.02
_CHUNK: Final = 65536
_START_S: Final = 20.0  # a new process imports SQLAlchemy, perhaps on a busy machine


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillPlan:
    """What is to be drilled."""

    incidents: tuple[Incident, ...]
    drivers: tuple[str, ...]
    pools: tuple[str, ...]
    trials: int | None
    """Of each cell; None: as many as the default drill has."""

    seed: int
    jobs: int
    full: bool = False
    """Whether each incident lasts as long as in life."""

    def all_drivers(self) -> tuple[str, ...]:
        """Return every driver that something is played with, each once."""
        own = (i.drivers_of(self.drivers) for i in self.incidents)
        return tuple(dict.fromkeys([*self.drivers, *itertools.chain(*own)]))

    def rows(self) -> list[Row]:
        """Return an empty row for every cell, in the order of the table."""
        return [
            Row(Cell(incident, driver, pool), incident.trials_of(self.trials))
            for incident in self.incidents
            for driver in incident.drivers_of(self.drivers)
            for pool in self.pools
        ]


@dataclass(frozen=True, slots=True)
class Progress:
    """Something came in: a few trials of a row, perhaps the last of them."""

    row: Row
    trials: int


def default_jobs() -> int:
    """Return how many batches run side by side: trials mostly wait."""
    return max(2, min(8, 2 * (os.cpu_count() or 1)))


class Runner:
    """Plays a plan against one database."""

    def __init__(
        self, plan: DrillPlan, target: Target, table: str, folder: Path
    ) -> None:
        """Prepare to play.

        Args:
            plan: What.
            target: Where.
            table: The drill's table there.
            folder: Where what is started puts its temporary files.
        """
        self.rows = plan.rows()
        self._began = time.monotonic()
        self._folder = folder
        self._plan = plan
        self._target = target
        self._table = table
        self._events: queue.Queue[_Heard | BaseException] = queue.Queue()
        self._stopping = threading.Event()

    @property
    def trials_total(self) -> int:
        """How many trials the whole plan has."""
        return sum(row.wanted for row in self.rows)

    def run(self) -> Generator[Progress, None, None]:
        """Play everything; yield as trials come in.

        Raises:
            SetupError: A trial could not be set up: the server went away, say.
        """
        for place, jobs in (("any", 0), ("quiet", 0), ("alone", 1)):
            rows = [row for row in self.rows if row.cell.incident.place == place]
            rows.sort(key=lambda row: not row.cell.incident.is_long)
            yield from self._play(rows, jobs or self._plan.jobs)

    def _play(self, rows: list[Row], jobs: int) -> Generator[Progress, None, None]:
        """Play some rows with so many batches at a time."""
        batches = deque(_Batch(row, trials) for row in rows for trials in _split(row))
        workers = [
            threading.Thread(target=self._work, args=(batches,), daemon=True)
            for _ in range(min(jobs, len(batches)))
        ]
        for worker in workers:
            worker.start()
        try:
            while not all(row.is_done for row in rows):
                try:
                    event = self._events.get(timeout=_POLL_S)
                except queue.Empty:
                    continue
                if isinstance(event, BaseException):
                    raise event
                yield self._take(event)
        finally:
            self._stopping.set()
            for worker in workers:
                worker.join()
            self._stopping.clear()

    def _work(self, batches: deque[_Batch]) -> None:
        """Be a worker: take the next batch until there is none."""
        try:
            while not self._stopping.is_set():
                try:
                    batch = batches.popleft()
                except IndexError:
                    return
                self._run_batch(batch)
        except BaseException as error:  # noqa: BLE001 (raised again in the caller's thread)
            self._events.put(error)

    def _run_batch(self, batch: _Batch) -> None:
        """Play a batch to its end, in as many processes as that takes.

        A process ends early when a thread in it hangs; another one goes on from there.
        """
        left = list(batch.trials)
        while left and not self._stopping.is_set():
            started = time.monotonic()
            answers = self._spawn(batch.row.cell, tuple(left))
            if self._stopping.is_set():
                return
            for answer in answers:
                left.remove(answer["trial"])
            if not answers:
                left.pop(0)
            seconds = time.monotonic() - started
            since = started - self._began
            self._events.put(_Heard(batch.row, tuple(answers), since, seconds))

    def _take(self, heard: _Heard) -> Progress:
        """Put what a process wrote into its row.

        Raises:
            SetupError: A trial says that it could not be set up.
        """
        row = heard.row
        row.seconds += heard.seconds
        row.spans.append((heard.since, heard.since + heard.seconds))
        for answer in heard.answers:
            if "broken" in answer:
                raise SetupError(
                    f"{row.cell.incident.name} with {row.cell.driver}:"
                    f" {self._target.redact(answer['broken'])}"
                )
            row.outcomes[answer["trial"]] = self._clean(answer["outcome"])
        if not heard.answers:
            row.crashes += 1
        return Progress(row, max(1, len(heard.answers)))

    def _clean(self, outcome: dict[str, Any]) -> dict[str, Any]:
        """Blot secrets, and what steers a terminal, out of a trial's messages."""
        samples = [
            "\n".join(map(printable, self._target.redact(sample).splitlines()))
            for sample in outcome["samples"]
        ]
        heard: dict[str, int] = {}
        for text, count in outcome["heard"].items():
            told = printable(self._target.redact(text))
            heard[told] = heard.get(told, 0) + count
        return {**outcome, "samples": samples, "heard": heard}

    def _spawn(self, cell: Cell, trials: tuple[int, ...]) -> list[dict[str, Any]]:
        """Run one process; return what it wrote, complete lines only."""
        order = Order(
            incident=cell.incident.name,
            driver=cell.driver,
            pool=cell.pool,
            table=self._table,
            seed=self._plan.seed,
            trials=trials,
            full=self._plan.full,
            url=self._target.render(),
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "poolproof.drill.trial"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": str(self._folder)},
            start_new_session=True,
        )
        try:
            if process.stdin is not None:
                with contextlib.suppress(BrokenPipeError), process.stdin:
                    process.stdin.write(order.dump().encode())
            bound_s = _START_S + cell.incident.bound_s * len(trials)
            written = self._listen(process, bound_s)
        finally:
            end_group(process)
        return [json.loads(line) for line in written.decode().split("\n")[:-1]]

    def _listen(self, process: subprocess.Popen[bytes], bound_s: float) -> bytes:
        """Return what the process writes until its end, the bound, or ours.

        A pipe, since a full disk would make a trial look as if it had crashed.
        """
        since = time.monotonic()
        written = b""
        if process.stdout is None:
            return written
        with process.stdout as pipe:
            while not is_over(since, bound_s) and not self._stopping.is_set():
                has_ended = process.poll() is not None
                if select.select([pipe], [], [], 0 if has_ended else _SLICE_S)[0]:
                    piece = os.read(pipe.fileno(), _CHUNK)
                    written += piece
                    if piece:
                        continue
                    has_ended = self._has_ended(process)
                if has_ended:
                    break
        return written

    def _has_ended(self, process: subprocess.Popen[bytes]) -> bool:
        """Give a process that writes no more a moment to end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SLICE_S)
        return process.poll() is not None


@dataclass(frozen=True, slots=True)
class _Batch:
    """Trials of one row that a process plays one after another."""

    row: Row
    trials: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Heard:
    """What one process wrote, none when it died, since when it ran and how long."""

    row: Row
    answers: tuple[dict[str, Any], ...]
    since: float
    seconds: float


def _split(row: Row) -> list[tuple[int, ...]]:
    """Cut a row's trials into batches."""
    size = row.cell.incident.batch
    return [
        tuple(range(first, min(first + size, row.wanted)))
        for first in range(0, row.wanted, size)
    ]


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a group, and whatever it left in the group.

    First it is asked, so that it reaps its own children; then it is killed.
    """
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
