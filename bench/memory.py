"""What an idle connection costs beyond QueuePool's own: memory and descriptors."""

from __future__ import annotations

import gc
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from _rounds import Number, Story
from _stub import SocketDriver, allow_descriptors, make_engine
from sqlalchemy.pool import QueuePool

import poolproof

METHOD = """
A fresh process for each number: it makes an engine over a driver whose connections are
socket pairs, opens and closes one, reads its resident memory and counts its
descriptors, then checks all connections out, checks them in, and reads again. Both
pools in each round, in alternating order; the difference of the growths, divided by
the connections, is what poolproof.Pool adds. All the driver's own (two Python sockets
and two descriptors a connection) is on both sides.
"""
CONNECTIONS = 2000
SPARE = 100  # descriptors for everything else
POOLS: dict[str, Any] = {"poolproof.Pool": poolproof.Pool, "QueuePool": QueuePool}
OURS, THEIRS = POOLS


def main() -> int:
    """Measure and report."""
    if sys.argv[1:2] == ["--grow"]:
        grow(POOLS[sys.argv[2]], int(sys.argv[3]))
        return 0
    story = Story("memory", METHOD, rounds=9)
    connections = story.scaled(CONNECTIONS, least=50)
    allowed = allow_descriptors(2 * connections + SPARE)
    connections = min(connections, (allowed - SPARE) // 2)
    story.facts["connections"] = connections
    grown: dict[str, list[tuple[float, float]]] = {side: [] for side in POOLS}
    for number in story.rounds():
        for side in POOLS if number % 2 else reversed(POOLS):
            grown[side].append(measured(side, connections))
    for place, unit, most in ((0, "bytes", 1024), (1, "descriptors", 1)):
        ours, theirs = ([one[place] for one in grown[side]] for side in POOLS)
        story.add(
            Number(
                f"{unit} for each idle connection beyond QueuePool's",
                unit,
                [a - b for a, b in zip(ours, theirs, strict=True)],
                at_most=most,
                sides={
                    f"{OURS} ({unit})": statistics.median(ours),
                    f"{THEIRS} ({unit})": statistics.median(theirs),
                },
            )
        )
    return story.report()


def measured(side: str, connections: int) -> tuple[float, float]:
    """Return the bytes and descriptors of one connection, from a fresh process."""
    done = subprocess.run(  # noqa: S603 - our own file
        [sys.executable, __file__, "--grow", side, str(connections)],
        check=True,
        capture_output=True,
        text=True,
    )
    resident, descriptors = map(float, done.stdout.split())
    return resident / connections, descriptors / connections


def grow(pool_class: Any, connections: int) -> None:
    """Fill a pool; print by how many bytes and descriptors the process has grown."""
    allow_descriptors(2 * connections + SPARE)
    driver = SocketDriver()
    engine = make_engine(driver, pool_class, 1)
    engine.dispose()
    gc.collect()
    resident, descriptors = resident_bytes(), descriptor_count()
    engine = make_engine(driver, pool_class, connections)
    gc.collect()
    print(resident_bytes() - resident, descriptor_count() - descriptors)
    engine.dispose()


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def descriptor_count() -> int:
    """Return how many descriptors this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


if __name__ == "__main__":
    sys.exit(main())
