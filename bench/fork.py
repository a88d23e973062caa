"""What a child pays for its first query, and what a fork pays for the protection."""

from __future__ import annotations

import os
import statistics
import sys
import traceback
from typing import TYPE_CHECKING, Any

from _rounds import Number, Story, alternate, clock
from _server import server
from _stub import SocketDriver, allow_descriptors, make_engine
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool, QueuePool

import poolproof

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine
    from sqlalchemy.engine import URL

METHOD = """
A process with one idle connection forks; the child times `connect()` and `select 1` on
the inherited engine, and says so through a pipe. Its peer is what a child could do at
best without a pool: the same query over the same driver in a forked child of the same
process, through an engine that pools nothing (NullPool) and whose dialect is already
initialised, so that both pay for a new connection, SQLAlchemy, and the page faults of a
new process. Beside it QueuePool with the recipe `dispose(close=False)` in the child,
and NullPool without a fork. PostgreSQL is embedded, over TCP on the loopback address,
without TLS or password, which makes connecting as cheap as it can be. Second part: a
fork of a process whose pool holds N idle socket pairs, from before `fork()` to the
first statement after it, in the parent and in the child; what ran at the fork in
between is the pool's renewal too.
"""
DRIVERS = ("psycopg2", "psycopg", "pg8000")
SLICES = 9
FORKS = 10
SOCKETS = (0, 10, 100, 1000)
MANY = (100, 1000)  # enough to say what each costs
OURS, THEIRS = "poolproof.Pool", "QueuePool"


def main() -> int:
    """Measure and report."""
    story = Story("fork", METHOD, rounds=15)
    with server() as url_of:
        for driver in DRIVERS:
            first_query(story, driver, url_of(driver))
    for sockets in SOCKETS:
        fork_itself(story, sockets)
    return story.report()


def first_query(story: Story, driver: str, url: URL) -> None:
    """Compare first queries in children, for one driver."""
    engines = {
        "poolproof.Pool": create_engine(url, poolclass=poolproof.Pool),
        "NullPool": create_engine(url, poolclass=NullPool),
        "QueuePool": create_engine(url, poolclass=QueuePool),
    }
    for engine in engines.values():
        query(engine)
    ours, none, queue = engines.values()
    variants: dict[str, Callable[[], float]] = {
        "ours": lambda: in_child(lambda: query(ours)),
        "plain": lambda: in_child(lambda: query(none)),
        "recipe": lambda: in_child(lambda: query_anew(queue)),
        "no fork": lambda: query(none),
        "ours, whole": lambda: fork_and_query(ours),
        "plain, whole": lambda: fork_and_query(none),
    }
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for _ in story.rounds(driver):
        slices = story.scaled(SLICES)
        for name, value in alternate(variants, slices).items():
            taken[name].append(value)
    for engine in engines.values():
        engine.dispose()
    title = f"{driver}: first query in a child"
    for mine, name, peer, at_most in (
        ("ours", "plain", "new connection in a child", 1.2),
        ("ours, whole", "plain, whole", "the same, both with the fork", None),
        ("ours", "recipe", "QueuePool, dispose(close=False)", None),
        ("ours", "no fork", "new connection without a fork", None),
    ):
        story.ratio(
            f"{title} ÷ {peer}",
            taken[mine],
            taken[name],
            sides=(OURS, "peer"),
            unit="ms",
            at_most=at_most,
        )


def query(engine: Engine) -> float:
    """Check out, run the smallest query, check in; return the time, in ms."""
    begun = clock()
    with engine.connect() as connection:
        connection.exec_driver_sql("select 1").scalar_one()
        return (clock() - begun) * 1e3


def query_anew(engine: Engine) -> float:
    """Do the same after the recipe that SQLAlchemy documents for children."""
    begun = clock()
    engine.dispose(close=False)
    return (clock() - begun) * 1e3 + query(engine)


def fork_and_query(engine: Engine) -> float:
    """Return the time from before the fork to the child's answer, in ms."""

    def work(begun: float) -> str:
        query(engine)
        return str((clock() - begun) * 1e3)

    return float(forked(work)[1])


def in_child(measure: Callable[[], float]) -> float:
    """Measure in a forked child."""
    return float(forked(lambda _: str(measure()))[1])


def forked(work: Callable[[float], str]) -> tuple[float, str]:
    """Fork; return the time the fork took in the parent, and what the child says.

    Args:
        work: Called in the child with the time just before the fork, in seconds.

    Returns:
        The parent's time in µs, the child's answer.

    Raises:
        ChildProcessError: The child failed.
    """
    reading, writing = os.pipe()
    begun = clock()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.write(writing, work(begun).encode())
            status = 0
        except BaseException:  # noqa: BLE001 - the status tells the parent
            traceback.print_exc()
        finally:
            os._exit(status)
    took = (clock() - begun) * 1e6
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    if os.waitpid(pid, 0)[1] or not text:
        raise ChildProcessError("a measured child failed; see its traceback above")
    return took, text


def fork_itself(story: Story, sockets: int) -> None:
    """Compare forks of processes whose pools hold that many idle connections."""
    # Both pools are there at every fork; only the one that is measured is filled. A
    # registered socket costs every fork, so each is measured in a process of its own.
    if allow_descriptors(2 * sockets + 200) < 2 * sockets + 200:
        story.facts[f"{sockets} sockets"] = "not measured: too few descriptors"
        return
    taken: dict[str, list[float]] = {}
    for number in story.rounds(f"{sockets} sockets"):
        sides: list[tuple[str, Any]] = [(OURS, poolproof.Pool), (THEIRS, QueuePool)]
        for side, pool_class in sides if number % 2 else reversed(sides):
            forks = story.scaled(FORKS, least=3)
            _, answer = forked(lambda _: time_forks(pool_class, sockets, forks))  # noqa: B023
            for who, value in zip(("parent", "child"), answer.split(), strict=True):
                taken.setdefault(f"{who} {side}", []).append(float(value))
    for who in ("child", "parent"):
        story.ratio(
            f"fork with {sockets} idle sockets, seen by the {who}",
            taken[f"{who} {OURS}"],
            taken[f"{who} {THEIRS}"],
            sides=(OURS, THEIRS),
        )
    extra = [
        ours - theirs
        for ours, theirs in zip(
            taken[f"child {OURS}"], taken[f"child {THEIRS}"], strict=True
        )
    ]
    if sockets in MANY:
        story.add(
            Number(
                f"fork with {sockets} idle sockets, for each in the child",
                "µs",
                [one / sockets for one in extra],
            )
        )


def time_forks(pool_class: Any, sockets: int, forks: int) -> str:
    """Fill a pool and fork; return the median times of parent and child, in µs."""
    engine = make_engine(SocketDriver(), pool_class, sockets or 1)
    if not sockets:
        engine.dispose()
    parents, children = zip(
        *(forked(lambda begun: str((clock() - begun) * 1e6)) for _ in range(forks)),
        strict=True,
    )
    return f"{statistics.median(parents)} {statistics.median(map(float, children))}"


if __name__ == "__main__":
    sys.exit(main())
