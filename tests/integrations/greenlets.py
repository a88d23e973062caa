"""A hundred greenlets on five connections: ``python greenlets.py HOW``."""

# ruff: noqa: E402 - gevent patches before anything else is imported
from gevent import monkey

monkey.patch_all()

import json
import os
import sys

import gevent
from sqlalchemy import create_engine, text
from sqlalchemy.pool import QueuePool

import poolproof

TABLE = os.environ["TEST_TABLE"]
POOLS = {"queue": QueuePool, "poolproof": poolproof.Pool}
GREENLETS, ROUNDS = 100, 5


def wait(connection):
    """Let other greenlets run while libpq waits, as psycogreen does."""
    from gevent.socket import wait_read, wait_write
    from psycopg2 import extensions

    while (state := connection.poll()) != extensions.POLL_OK:
        {extensions.POLL_READ: wait_read, extensions.POLL_WRITE: wait_write}[state](
            connection.fileno()
        )


if "wait callback" in sys.argv:
    from psycopg2.extensions import set_wait_callback

    set_wait_callback(wait)

engine = create_engine(
    os.environ["TEST_URL"],
    poolclass=POOLS[os.environ["TEST_POOL"]],
    pool_size=3,
    max_overflow=2,
)
insert = text(f"insert into {TABLE} values (:n)")
served = [0] * GREENLETS
committed, wrong, spreads, ticks = [], [], [], []


def work(me):
    """Write, commit and ask, several times, on a connection that was waited for."""
    for n in range(ROUNDS):
        number = me * 100 + n
        with engine.connect() as connection:
            served[me] += 1
            spreads.append(max(served) - min(served))
            connection.execute(insert, {"n": number})
            connection.commit()
            committed.append(number)
            told = connection.scalar(text("select :t"), {"t": str(number)})
            if told != str(number):
                wrong.append(f"asked for {number}, got {told!r}")


def tick():
    """Count how often the hub gets round."""
    while True:
        ticks.append(1)
        gevent.sleep(0.001)


ticking = gevent.spawn(tick)
greenlets = [gevent.spawn(work, me) for me in range(GREENLETS)]
gevent.joinall(greenlets, raise_error=True)
ticking.kill()
facts = {
    "committed": committed,
    "wrong": wrong,
    "spread": [max(spreads)],
    "ticks": [len(ticks)],
    "left": [engine.pool.checkedout()],
}
engine.dispose()
sys.stdout.write(json.dumps(facts) + "\n")
