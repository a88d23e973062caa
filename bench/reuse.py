"""What a checkout of a real connection costs, beside QueuePool and its pre-ping."""

from __future__ import annotations

import socket
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from _rounds import Number, Story, alternate, clock, pin
from _server import server
from _worker import Worker
from sqlalchemy import create_engine
from sqlalchemy.pool import QueuePool

import poolproof
from poolproof import _native

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine
    from sqlalchemy.engine import URL

METHOD = """
psycopg2, and psycopg where it is named, over TCP on the loopback address, an embedded
PostgreSQL on the other core; one thread, each engine in a process of its own.
poolproof.Pool is as it comes, with every check and bound on; no connection rests for
longer than ping_idle_after (1 s), so none is asked: a service with fewer than one
request a second for each connection pays one round trip more. "connect, select 1,
close" is three round trips by default (BEGIN, select, ROLLBACK), one in autocommit, and
a ping adds one. Slices of some milliseconds alternate between the pools; the median
slice is the round's time. Arm and disarm is one deadline set and taken back from Python
on a unix socket, and on TCP, where TCP_USER_TIMEOUT is set and taken back as well.
"""
SLICES = 40
CALLS = {"connect": 60, "select": 15, "autocommit": 15}
ARMS = 1000
OURS, PLAIN, PINGING = "poolproof.Pool", "QueuePool", "QueuePool with ping"


def main() -> int:
    """Measure and report."""
    story = Story("reuse", METHOD, rounds=15)
    story.facts["pinned to core"] = pin()
    with server() as url_of:
        url = url_of("psycopg2")
        workers = [
            Worker(partial(verbs, name, url, options))
            for name, options in (
                (OURS, {"poolclass": poolproof.Pool}),
                (PLAIN, {"poolclass": QueuePool}),
                (PINGING, {"poolclass": QueuePool, "pool_pre_ping": True}),
            )
        ]
        newer = url_of("psycopg")
        workers.extend(
            Worker(partial(connecting, name, newer, kind))
            for name, kind in ((OURS, poolproof.Pool), (PLAIN, QueuePool))
        )
        workers.append(Worker(arming))
        variants = {
            name: partial(worker.measure, name)
            for worker in workers
            for name in worker.names
        }
        taken: dict[str, list[float]] = {name: [] for name in variants}
        for _ in story.rounds():
            slices = story.scaled(SLICES, least=2)
            for name, value in alternate(variants, slices).items():
                taken[name].append(value)
        for worker in workers:
            worker.close()

    story.ratio(
        "connect().close() ÷ QueuePool's without ping",
        taken[f"connect {OURS}"],
        taken[f"connect {PLAIN}"],
        sides=(OURS, PLAIN),
        at_most=1,
    )
    story.ratio(
        "the same on psycopg",
        taken[f"psycopg {OURS}"],
        taken[f"psycopg {PLAIN}"],
        sides=(OURS, PLAIN),
        at_most=1,
    )
    for verb, title in (
        ("select", "connect, select 1, close"),
        ("autocommit", "the same in autocommit"),
    ):
        story.ratio(
            f"{title}: QueuePool with ping ÷ ours",
            taken[f"{verb} {PINGING}"],
            taken[f"{verb} {OURS}"],
            sides=(PINGING, OURS),
            at_least=2 if verb == "select" else None,
        )
        story.ratio(
            f"{title}: ours ÷ QueuePool without ping",
            taken[f"{verb} {OURS}"],
            taken[f"{verb} {PLAIN}"],
            sides=(OURS, PLAIN),
        )
    story.add(Number("arm and disarm", "µs", taken["arm unix"], at_most=0.5))
    story.add(Number("arm and disarm, TCP", "µs", taken["arm tcp"]))
    return story.report()


def verbs(
    label: str, url: URL, options: dict[str, Any]
) -> dict[str, Callable[[], float]]:
    """Make an engine, and what measures it."""
    engine = create_engine(url, **options)
    commits = create_engine(url, isolation_level="AUTOCOMMIT", **options)
    return {
        f"connect {label}": timed(lambda: engine.connect().close(), CALLS["connect"]),
        f"select {label}": timed(lambda: select(engine), CALLS["select"]),
        f"autocommit {label}": timed(lambda: select(commits), CALLS["autocommit"]),
    }


def connecting(label: str, url: URL, kind: Any) -> dict[str, Callable[[], float]]:
    """Make an engine, and what measures its checkout alone."""
    engine = create_engine(url, poolclass=kind)
    call = CALLS["connect"]
    return {f"psycopg {label}": timed(lambda: engine.connect().close(), call)}


def select(engine: Engine) -> None:
    """Check out, run the smallest query, check in."""
    with engine.connect() as connection:
        connection.exec_driver_sql("select 1").scalar_one()


def timed(call: Callable[[], None], calls: int) -> Callable[[], float]:
    """Time so many calls, in µs a call, after a few that warm up."""

    def run() -> float:
        for _ in range(5):
            call()
        begun = clock()
        for _ in range(calls):
            call()
        return (clock() - begun) / calls * 1e6

    return run


def arming() -> dict[str, Callable[[], float]]:
    """Make what measures one deadline, on a unix socket and on TCP."""
    here, there = socket.socketpair()
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    held = (here, there, listener, client)

    def arm(one: socket.socket) -> Callable[[], float]:
        watched = _native.Socket(one.fileno())
        step = _native.CALL

        def run() -> float:
            begun = clock()
            for _ in range(ARMS):
                watched.arm(step, 5.0)
                watched.disarm(step)
            assert held
            return (clock() - begun) / ARMS * 1e6

        return run

    return {"arm unix": arm(here), "arm tcp": arm(client)}


if __name__ == "__main__":
    sys.exit(main())
