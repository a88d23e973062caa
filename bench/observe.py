"""What it costs to see: counting, memory, a scrape, watching, the doctor."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _rounds import Number, Story, alternate, clock, pin
from _server import server
from _stub import SocketDriver, make_engine
from _worker import Worker
from rich.console import Console

import doctor
import poolproof
from poolproof import _native
from poolproof.faults import journal
from poolproof.metrics import exposition, files
from poolproof.metrics.process_file import ProcessFile
from poolproof.metrics.table import read
from poolproof.watch.screen import screen
from poolproof.watch.sources import look

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine import URL

METHOD = """
Counting: `Gate.lend` and `Ticket.release` as a checkout and a check-in call them, with
and without the pool's timings, and with them inside a `poolproof.scope`; each in a
process of its own, all pinned to one core. What is told apart is all that a checkout
pays for metrics: no line of Python is run for them. Memory: the growth of resident
memory of a fresh process that makes 1,000 timings, divided by 1,000, with holds,
connects and pings of 10 µs to 0.6 s in them, and waits of none. "journal and histograms
of 20 pools": what the core counts of such timings, with holds in 3 scopes, and what
Python counts of a journal that was filled with the largest events that there are. A
scrape: 16 processes have each written 50 pools into a directory; their files are read,
added up and rendered as Prometheus reads them. The same of one process and one pool is
what most applications pay. Watching: 16 processes live, each with 3 pools and 2 held
connections; the processor time that a look and the drawing of 80 columns take, once a
second, as a share of one core. The doctor: every check on one URL, of a server that
answers and of a socket that never does (`doctor.py` has more).
"""
CALLS = 1000
SLICES = 120
TIMINGS = 1000
POOLS, PROCESSES = 50, 16
SCOPES = 1
WATCHED_POOLS, HELD, LOOKS = 3, 2, 20
KEPT_POOLS, KEPT_SCOPES = 20, 3
# From 10 µs to 0.6 s, as a busy service has them.
USUAL_S = tuple(m * 10.0**e for e in range(-5, 0) for m in (1, 3, 6))


def main() -> int:
    """Measure and report."""
    if sys.argv[1:2] == ["--grow"]:
        grow(sys.argv[2], int(sys.argv[3]))
        return 0
    if sys.argv[1:2] == ["--write"]:
        write(Path(sys.argv[2]))
        return 0
    if sys.argv[1:2] == ["--live"]:
        live(Path(sys.argv[2]))
        return 0
    story = Story("observe", METHOD, rounds=9)
    story.facts["pinned to core"] = pin()
    kinds = ("counted", "uncounted", "scoped")
    workers = {kind: Worker(partial(verbs, kind)) for kind in kinds}
    variants = {kind: partial(workers[kind].measure, kind) for kind in kinds}
    taken: dict[str, list[float]] = {kind: [] for kind in kinds}
    seen: dict[str, list[float]] = {}
    with (
        tempfile.TemporaryDirectory(dir=shared_memory()) as place,
        server() as url_of,
        socket.create_server(("127.0.0.1", 0)) as mute,
    ):
        full, single = Path(place, "full"), Path(place, "single")
        fill(full, story.scaled(PROCESSES, least=2))
        fill(single, 1, pools=1)
        url = url_of("psycopg2")
        timings = story.scaled(TIMINGS, least=100)
        with living(Path(place, "live"), story.scaled(PROCESSES, least=2)) as lives:
            others: dict[str, Callable[[], float]] = {
                "journal and histograms": lambda: grown("journal", KEPT_POOLS),
                "timings of one pool": lambda: grown("usual", timings),
                "full": lambda: scrape(full),
                "single": lambda: scrape(single),
                "watch": lambda: watched(lives, story.scaled(LOOKS, least=2)),
                "doctor": lambda: lasts(doctor.look, url),
                "mute": lambda: lasts(
                    doctor.knock, url.set(port=mute.getsockname()[1])
                ),
            }
            for _ in story.rounds():
                found = alternate(variants, story.scaled(SLICES, least=2))
                for kind, value in found.items():
                    taken[kind].append(value)
                for what, measure in others.items():
                    seen.setdefault(what, []).append(measure())
    for worker in workers.values():
        worker.close()
    report(story, taken, seen)
    return story.report()


def report(
    story: Story, taken: dict[str, list[float]], seen: dict[str, list[float]]
) -> None:
    """Add what was measured."""
    sides = {f"{kind} (µs)": statistics.median(each) for kind, each in taken.items()}
    for kind, name in (("counted", "all counting"), ("scoped", "the same in a scope")):
        beyond = [a - b for a, b in zip(taken[kind], taken["uncounted"], strict=True)]
        story.add(Number(f"{name}, a checkout", "µs", beyond, at_most=0.3, sides=sides))
    for name, most, behind in (
        ("journal and histograms", 256, f" of {KEPT_POOLS} pools"),
        ("timings of one pool", None, ""),
    ):
        story.add(Number(name + behind, "KiB", seen[name], at_most=most))
    for name, unit, what, most in (
        (f"a scrape of {POOLS} pools × {PROCESSES}", "ms", "full", 50),
        ("a scrape of one pool of one process", "ms", "single", None),
        (f"watching {PROCESSES} × {WATCHED_POOLS} pools", "% of a core", "watch", 2),
        ("the doctor, of a server that answers", "s", "doctor", 5),
        ("the doctor, of one that is mute", "s", "mute", 5),
    ):
        story.add(Number(name, unit, seen[what], at_most=most))


def verbs(kind: str) -> dict[str, Callable[[], float]]:
    """Make what measures the two verbs, in µs a pair."""
    timings = None if kind == "uncounted" else _native.Timings()
    gate, idle = gate_of(timings)
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


def grown(what: str, number: int) -> float:
    """Have a fresh process say what something takes, in KiB."""
    command = [sys.executable, __file__, "--grow", what, str(number)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    return float(done.stdout)


def grow(what: str, number: int) -> None:
    """Print what this process takes for each of so many timings, or for a journal."""
    warm, idle = gate_of(_native.Timings())
    warm.lend(idle)  # what is loaded with the first is no part of it
    before = resident()
    made = [_native.Timings() for _ in range(number)]
    gates = [gate_of(timings) for timings in made]
    for scope in range(1 if what == "usual" else KEPT_SCOPES):
        with poolproof.scope(f"scope {scope}"):
            for seconds in USUAL_S:
                for timings in made:
                    timings.record_connect(seconds)
                    timings.record_ping(seconds)
                lent = [(gate.lend(idle), idle) for gate, idle in gates]
                time.sleep(seconds)
                for entry, idle in lent:
                    entry.ticket.release(idle, entry)
    if what == "journal":
        # Beside them it has less room. A heap grows by leaps, so this is counted.
        logging.disable()
        tracemalloc.start()
        note_most()
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0]
        print((kept + _native.histogram_bytes()) / 1024)
    else:
        print((resident() - before) / number)


def gate_of(timings: Any) -> tuple[Any, dict[int, Any]]:
    """Make a gate with one slot at rest."""
    gate = _native.Gate(kept=1, total=1, lifo=False, timings=timings)
    idle: dict[int, Any] = {}
    ticket = gate.acquire()
    assert ticket is not None
    ticket.release(idle, Entry())
    return gate, idle


def note_most() -> None:
    """Fill the journal with the largest events that there are."""
    for event in range(2 * journal.MOST):
        journal.note(
            "discard",
            "an exception interrupted the checkout or a call (a signal, a soft time "
            "limit, a killed greenlet)",
            pool="app@db",
            reason="interrupted",
            backend_pid=100_000 + event,
            processes=(300_000 + event,),
            age=event * 1.5,
            unread=("RowDescription 30", "DataRow 40", "ReadyForQuery 5"),
            statements=tuple(
                f"select {event}, {number}, {'x' * 470}" for number in range(16)
            ),
        )


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


@contextlib.contextmanager
def living(directory: Path, processes: int) -> Iterator[Path]:
    """Run so many processes that hold connections, and keep their metrics there."""
    directory.mkdir()
    started = [
        subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, __file__, "--live", f"{directory}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": "", "PYTHONPATH": ":".join(sys.path)},
        )
        for _ in range(processes)
    ]
    try:
        for one in started:
            assert one.stdout is not None
            one.stdout.readline()
        yield directory
    finally:
        for one in started:
            one.communicate()


def live(directory: Path) -> None:
    """Be one of them: write once, and wait, so that no other's time is measured."""
    engines = [
        make_engine(SocketDriver(), poolproof.Pool, 2, pool_logging_name=f"pool {n}")
        for n in range(WATCHED_POOLS)
    ]
    with poolproof.scope("page"):
        held = [engines[0].connect() for _ in range(HELD)]
    process = poolproof.snapshot()
    holders = [
        [pool.name, one.thread, one.scope, number, one.held_s, one.is_busy]
        for pool in process.pools
        for number, one in enumerate(pool.holders)
    ]
    file = ProcessFile(directory)
    more = {"is_main": False, "written": time.monotonic()}
    file.write(files.encode(read(process), pid=os.getpid(), holders=holders, **more))
    print(len(held), flush=True)
    sys.stdin.read()


def watched(directory: Path, looks: int) -> float:
    """Return the share of a core, in percent, that a look each second takes."""
    console = Console(file=io.StringIO(), width=80, height=40, force_terminal=True)
    begun = time.process_time()
    for _ in range(looks):
        view = look(directory, None)
        assert view.holders
        console.print(screen(view, order="h", height=40, keys=True))
    return (time.process_time() - begun) / looks * 100


def lasts(what: Callable[[URL], None], url: URL) -> float:
    """Return how long something takes, in s."""
    begun = clock()
    what(url)
    return clock() - begun


def write(directory: Path) -> None:
    """Be one of them."""
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
