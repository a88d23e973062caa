"""Fixtures of the drill: its stage, a run under way, and who lives in /proc."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from plugins.drills import (  # noqa: F401 - fixtures
    environment,
    poolproof,
    server,
    tables,
    url,
    workplace,
)
from poolproof.drill.stage import Stage
from poolproof.drill.table import Table
from poolproof.drill.target import Target

COMMAND = (sys.executable, "-m", "poolproof", "drill")


@pytest.fixture
def target(url) -> Target:  # noqa: F811 - the fixture
    return Target.parse(url)


@pytest.fixture
def stage(target) -> Iterator[Stage]:
    with Table(target, "psycopg2") as table:
        yield Stage(
            target=target,
            driver="psycopg2",
            pool="queue",
            table=table.name,
            seed=1,
            trial=0,
        )


class Running:
    """A drill that is under way, and everything that descends from it."""

    def __init__(self, directory: Path, args: tuple[str, ...], env: dict[str, str]):
        self.directory = directory
        self.process = subprocess.Popen(
            [*COMMAND, *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(directory, env),
        )
        self.seen: dict[int, str] = {}  # and when they began: numbers are used again

    def until(self, words: str) -> None:
        """Wait until the drill has written a line with these words."""
        heard = ""
        for line in self.process.stdout:
            heard += line
            if words in line:
                return
        raise AssertionError(f"the drill ended without saying {words!r}: {heard}")

    def until_descended(self, count: int) -> set[int]:
        """Wait until that many processes descend from the drill."""
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline:
            now = self.look()
            if len(now) >= count:
                return now
            time.sleep(0.02)
        raise AssertionError(f"only {descendants(self.process.pid)} descended")

    def look(self) -> set[int]:
        """Remember who descends from the drill now; return them."""
        now = descendants(self.process.pid)
        for pid in now:
            self.seen.setdefault(pid, began(pid))
        return now

    def end(self, number: int) -> int:
        """Send a signal; wait for the end; return the exit status."""
        self.look()
        self.process.send_signal(number)
        self.rest, _ = self.process.communicate(timeout=200)
        return self.process.returncode

    def left_behind(self) -> dict[int, str]:
        """Return who of the descendants still lives after a moment of grace."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            alive = {
                pid: command(pid)
                for pid, since in self.seen.items()
                if lives(pid) and began(pid) == since
            }
            if not alive:
                return {}
            time.sleep(0.05)
        return alive


@pytest.fixture
def start(workplace) -> Iterator[Callable[..., Running]]:  # noqa: F811
    """Start a drill whose end the test decides."""
    started: list[Running] = []

    def begin(*args: str, **env: str) -> Running:
        started.append(Running(workplace, args, env))
        return started[-1]

    yield begin
    for running in started:
        if running.process.poll() is None:
            running.process.send_signal(signal.SIGTERM)
        running.process.communicate(timeout=200)


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def status_of(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name: state, parent, …."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def lives(pid: int) -> bool:
    fields = status_of(pid)
    return bool(fields) and fields[0] != "Z"


def began(pid: int) -> str:
    """Return when a process began, in the kernel's ticks; nothing when it is gone."""
    fields = status_of(pid)
    return fields[19] if len(fields) > 19 else ""


def descendants(root: int) -> set[int]:
    """Return every process below *root*, by their parents in /proc."""
    parents = {
        int(path.name): int(fields[1])
        for path in Path("/proc").glob("[0-9]*")
        if (fields := status_of(int(path.name)))
    }
    found: set[int] = set()
    generation = {root}
    while generation:
        generation = {pid for pid, parent in parents.items() if parent in generation}
        found |= generation
    return found
