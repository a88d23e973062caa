"""What counting costs a checkout, what it takes of memory, and what a scrape takes."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _rounds import Number, Story, alternate, clock, pin
from _stub import SocketDriver, make_engine
from _worker import Worker

import poolproof
from poolproof import _native
from poolproof.metrics import exposition, files
from poolproof.metrics.process_file import ProcessFile
from poolproof.metrics.table import read

if TYPE_CHECKING:
    from collections.abc import Callable

METHOD = """
Counting: `Gate.lend` and `Ticket.release` as a checkout and a check-in call them, with
and without the pool's timings, and with them inside a `poolproof.scope`; each in a
process of its own, all pinned to one core. What is told apart is all that a checkout
pays for metrics: no line of Python is run for them. Memory: the growth of resident
memory of a fresh process that makes 1,000 timings, all pages of them written, divided
by 1,000. A scrape: 16 processes have each written 50 pools into a directory; their
files are read, added up and rendered as Prometheus reads them. The same of one process
and one pool is what most applications pay.
"""
CALLS = 1000
SLICES = 120
TIMINGS = 1000
POOLS, PROCESSES = 50, 16
SCOPES = 1


def main() -> int:
    """Measure and report."""
    if sys.argv[1:2] == ["--grow"]:
        grow(int(sys.argv[2]))
        return 0
    if sys.argv[1:2] == ["--write"]:
        write(Path(sys.argv[2]))
        return 0
    story = Story("observe", METHOD, rounds=9)
    story.facts["pinned to core"] = pin()
    kinds = ("counted", "uncounted", "scoped")
    workers = {kind: Worker(partial(verbs, kind)) for kind in kinds}
    variants = {kind: partial(workers[kind].measure, kind) for kind in kinds}
    taken: dict[str, list[float]] = {kind: [] for kind in kinds}
    sizes, many, one = [], [], []
    with tempfile.TemporaryDirectory(dir=shared_memory()) as place:
        full, single = Path(place, "full"), Path(place, "single")
        fill(full, story.scaled(PROCESSES, least=2))
        fill(single, 1, pools=1)
        for _ in story.rounds():
            found = alternate(variants, story.scaled(SLICES, least=2))
            for kind, value in found.items():
                taken[kind].append(value)
            sizes.append(grown(story.scaled(TIMINGS, least=100)))
            many.append(scrape(full))
            one.append(scrape(single))
    for worker in workers.values():
        worker.close()
    report(story, taken, sizes, many, one)
    return story.report()


def report(
    story: Story,
    taken: dict[str, list[float]],
    sizes: list[float],
    many: list[float],
    one: list[float],
) -> None:
    """Add what was measured."""
    sides = {f"{kind} (µs)": statistics.median(each) for kind, each in taken.items()}
    for kind, name in (("counted", "all counting"), ("scoped", "the same in a scope")):
        beyond = [a - b for a, b in zip(taken[kind], taken["uncounted"], strict=True)]
        story.add(Number(f"{name}, a checkout", "µs", beyond, at_most=0.3, sides=sides))
    story.add(Number("timings of one pool", "KiB", sizes, at_most=256))
    story.add(
        Number(f"a scrape of {POOLS} pools × {PROCESSES}", "ms", many, at_most=50)
    )
    story.add(Number("a scrape of one pool of one process", "ms", one))


def verbs(kind: str) -> dict[str, Callable[[], float]]:
    """Make what measures the two verbs, in µs a pair."""
    timings = None if kind == "uncounted" else _native.Timings()
    gate = _native.Gate(kept=5, total=5, lifo=False, timings=timings)
    idle: dict[int, Any] = {}
    ticket = gate.acquire()
    assert ticket is not None
    ticket.release(idle, Entry())
    if kind == "scoped":
        poolproof.scope("measured").__enter__()
    lend = gate.lend
    calls = range(CALLS)

    def run() -> float:
        begun = clock()
        for _ in calls:
            entry = lend(idle)
            entry.ticket.release(idle, entry)
        return (clock() - begun) / CALLS * 1e6

    return {kind: run}


class Entry:
    """What an idle slot has: the gate puts a ticket into it."""

    __slots__ = ("ticket",)


def grown(timings: int) -> float:
    """Have a fresh process make timings; return KiB for each."""
    command = [sys.executable, __file__, "--grow", str(timings)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    return float(done.stdout)


def grow(number: int) -> None:
    """Print by how many KiB this process grows with each of so many timings."""
    before = resident()
    made = [_native.Timings() for _ in range(number)]
    for one in made:
        one.absorb(one)
    print((resident() - before) / number)


def resident() -> float:
    """Return this process's resident memory in KiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1024


def shared_memory() -> str | None:
    """Return where files are kept in memory, as is advised for metrics."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - advised


def fill(directory: Path, processes: int, pools: int = POOLS) -> None:
    """Have so many processes write their pools into a directory, and go."""
    directory.mkdir()
    for _ in range(processes):
        command = [sys.executable, __file__, "--write", f"{directory}"]
        subprocess.run(  # noqa: S603 - ourselves
            command,
            check=True,
            env={"PATH": "", "PYTHONPATH": ":".join(sys.path), "POOLS": str(pools)},
        )


def write(directory: Path) -> None:
    """Be one of them."""
    import os  # noqa: PLC0415 - in this process alone

    engines = [
        make_engine(
            SocketDriver(), poolproof.Pool, 1, pool_logging_name=f"pool {number}"
        )
        for number in range(int(os.environ["POOLS"]))
    ]
    for engine in engines:
        for number in range(SCOPES):
            with poolproof.scope(f"scope {number}"), engine.connect():
                pass
        engine.pool.totals.discarded.add("dead")  # type: ignore[attr-defined]
    samples = read(poolproof.snapshot())
    ProcessFile(directory).write(files.encode(samples, pid=os.getpid(), holders=[]))


def scrape(directory: Path) -> float:
    """Time one scrape, in ms."""
    begun = clock()
    text = exposition.text(files.read_all(directory))
    took = (clock() - begun) * 1e3
    assert b"poolproof_connections" in text
    return took


if __name__ == "__main__":
    sys.exit(main())
