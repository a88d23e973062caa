"""The file of a process that gevent has patched: written once a second, over a fork."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from plugins.threads import eventually
from poolproof.metrics import files

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gevent") is None, reason="gevent is not installed"
)

SCRIPT = """
import sys
from gevent import monkey
monkey.patch_all()
import os
import gevent
sys.path.insert(0, sys.argv[1])
from plugins.dbapi import SocketDBAPI
import poolproof

pool = poolproof.Pool(SocketDBAPI().connect, pool_size=2, logging_name="green")
pool.connect().close()
gevent.sleep(0)
child = os.fork()
# What follows is only seen if a greenlet writes beside it, in each of the two.
for _ in range(2 if child else 5):
    pool.connect().close()
print(os.getpid(), flush=True)
while not os.path.exists(sys.argv[2]):
    gevent.sleep(0.02)
if child:
    os.waitpid(child, 0)
"""


def test_a_greenlet_writes_beside_the_others_and_in_a_child(tmp_path):
    place, end = tmp_path / "metrics", tmp_path / "end"
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(Path(__file__).parents[1]), str(end)],
        env={**os.environ, "POOLPROOF_METRICS_DIR": str(place)},
        stdout=subprocess.PIPE,
        text=True,
    )

    def checkouts():
        return {
            body["pid"]: sum(body["samples"]["checkouts_total"].values())
            for body in files.live(place)
        }

    try:
        pids = {int(process.stdout.readline()) for _ in range(2)}
        (child,) = pids - {process.pid}
        eventually(lambda: checkouts() == {process.pid: 3, child: 5})
        # And again and again: it is no more than two seconds behind for long.
        before = {body["pid"]: body["written"] for body in files.live(place)}

        def has_written():
            now = {body["pid"]: body["written"] for body in files.live(place)}
            return all(now[pid] > before[pid] for pid in pids)

        eventually(has_written)
    finally:
        end.touch()
        process.stdout.read()
        assert process.wait(60) == 0
        process.stdout.close()
