"""Processes that compete, are killed, paused and cut off: the history stays in order.

Each process acquires the lease, and writes its fence and a mark into a register, under
the guard, again and again. The register is a table that records every write that was
committed, in order. Whatever happens to the processes, the fences in it never fall, and
no two processes ever write under one fence.
"""

from __future__ import annotations

import random
import signal
import time

import pytest

from poolproof.drill.proxy import Proxy
from poolproof.drill.target import Target

COMPETITOR = """
    import os, sys, time
    from sqlalchemy import create_engine, exc, text
    import poolproof

    url, name, register = sys.argv[1:4]
    engine = create_engine(url, poolclass=poolproof.Pool, pool_timeout=5)
    write = text(f"insert into {register} (fence, pid) values (:fence, :pid)")
    print("ready")
    while True:
        try:
            with poolproof.Lease(engine, name, ttl=1, timeout=2) as lease:
                for _ in range(40):
                    with poolproof.deadline(2), engine.begin() as connection:
                        # What the process knows does not help: the server decides.
                        lease.check = lambda: None
                        lease.guard(connection)
                        connection.execute(
                            write, {"fence": lease.fence, "pid": os.getpid()}
                        )
                    time.sleep(0.002)
                del lease.check
        except (poolproof.LeaseError, poolproof.ControlError, exc.SQLAlchemyError):
            time.sleep(0.01)
"""


@pytest.fixture
def register(observer, name):
    """Make a register that keeps every write in the order of its commit."""
    table = "register_" + "".join(c for c in name if c.isdigit())
    observer.rows(
        f"create table {table} (n bigint generated always as identity,"
        " fence bigint not null, pid bigint not null)"
    )
    yield table
    observer.rows(f"drop table {table}")


def check(history: list[tuple[int, int]]) -> int:
    """Check a history of fences and processes; return how many acquisitions it has."""
    writers: dict[int, int] = {}
    last = 0
    for place, (fence, pid) in enumerate(history):
        assert fence >= last, f"write {place}: fence {fence} after {last}"
        assert writers.setdefault(fence, pid) == pid, f"two wrote under fence {fence}"
        last = fence
    return len(writers)


def compete(pg, observer, program, name, register, *, processes, seconds, rng):
    """Run competitors and do them harm; return the history."""
    target = Target.parse(pg.url("psycopg2").render_as_string(hide_password=False))
    with Proxy(target.address()) as proxy:
        direct = pg.url("psycopg2")
        urls = [direct, direct.set(port=proxy.port)]

        def start(n):
            shown = urls[n % 2].render_as_string(hide_password=False)
            return program(COMPETITOR, shown, name, register)

        running = [start(n) for n in range(processes)]
        for one in running:
            assert one.line() == "ready"
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(rng.uniform(0.05, 0.4))
            n = rng.randrange(processes)
            harm = rng.choice(["kill", "pause", "pause", "partition", "cut"])
            if harm == "kill":
                running[n].send(signal.SIGKILL)
                running[n].wait()
                running[n] = start(n)
            elif harm == "pause":
                running[n].send(signal.SIGSTOP)
                time.sleep(rng.uniform(0.2, 2.0))
                running[n].send(signal.SIGCONT)
            elif harm == "partition":
                proxy.stall()
                time.sleep(rng.uniform(0.2, 2.0))
                proxy.resume(old=rng.random() < 0.5)
            else:
                for link in proxy.links:
                    link.cut()
        for one in running:
            one.send(signal.SIGKILL)
            one.wait()
    # What the server has in hand is still to come.
    while observer.value(
        "select count(*) from pg_locks where relation = %s::regclass", register
    ):
        time.sleep(0.01)
    return observer.rows(f"select fence, pid from {register} order by n")


def test_a_history_that_breaks_the_rule_is_found():
    check([(1, 7), (1, 7), (4, 8)])
    with pytest.raises(AssertionError, match="fence 1 after 2"):
        check([(1, 7), (2, 8), (1, 7)])
    with pytest.raises(AssertionError, match="two wrote"):
        check([(1, 7), (1, 8)])


@pytest.mark.slow
def test_no_write_of_a_stale_holder_is_ever_accepted(
    pg, observer, program, name, register
):
    rng = random.Random(4711)  # noqa: S311
    history = compete(
        pg, observer, program, name, register, processes=3, seconds=6, rng=rng
    )
    assert check(history) >= 3


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_no_write_of_a_stale_holder_is_ever_accepted_for_long(
    pg, observer, program, name, register
):
    history = compete(
        pg,
        observer,
        program,
        name,
        register,
        processes=20,
        seconds=180,
        rng=random.Random(),  # noqa: S311
    )
    assert check(history) >= 200
