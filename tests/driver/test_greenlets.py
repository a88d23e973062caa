"""Greenlets of gevent and eventlet that wait for a server beside each other."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# What both hubs are asked, each in its own words.
PROGRAM = """
import json, sys, time

import poolproof.driver

dsn = sys.argv[1]
connections = [poolproof.driver.connect(dsn) for _ in range(4)]


def sleep(connection):
    return connection.execute("select pg_sleep(1), pg_backend_pid()").fetchone()[1]


begun = time.monotonic()
greenlets = [spawn(sleep, connection) for connection in connections]
found = [result(greenlet) for greenlet in greenlets]
side_by_side = time.monotonic() - begun
right = found == [connection.info.backend_pid for connection in connections]

(doomed, *others) = connections
doomed.rollback()
greenlet = spawn(lambda: doomed.execute("select pg_sleep(60)"))
pause(0.3)
begun = time.monotonic()
kill(greenlet)
killed = time.monotonic() - begun
alive = [one.execute("select 42").fetchone() == (42,) for one in others]
print(json.dumps([right, side_by_side, killed, doomed.closed, alive]))
"""
HUBS = {
    "gevent": """
from gevent import monkey
monkey.patch_all()
import gevent
spawn, pause = gevent.spawn, gevent.sleep
result = lambda greenlet: greenlet.get()
kill = lambda greenlet: greenlet.kill()
""",
    "eventlet": """
import warnings
warnings.simplefilter("ignore")
import eventlet
eventlet.monkey_patch()
spawn, pause = eventlet.spawn, eventlet.sleep
result = lambda greenlet: greenlet.wait()
kill = lambda greenlet: greenlet.kill()
""",
}


@pytest.mark.parametrize("hub", HUBS)
def test_greenlets_wait_beside_each_other_and_a_kill_arrives(dsn, hub):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HUBS[hub] + PROGRAM, dsn],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    right, side_by_side, killed, closed, alive = json.loads(done.stdout)
    assert right
    assert side_by_side < 4  # one after the other they would take four seconds
    assert killed < 50  # and not what is left of the minute
    assert closed
    assert all(alive)
