"""A service of the drill ends with whoever started it, however that happens."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from plugins.threads import eventually
from poolproof.drill.service import Service
from poolproof.drill.stage import Stage
from poolproof.drill.target import Target

SLEEPER = "import os, time; os.fork(); print('up', flush=True); time.sleep(600)"
STARTER = f"""
import time
from poolproof.drill.service import Service
from poolproof.drill.stage import Stage
from poolproof.drill.target import Target

stage = Stage(
    target=Target.parse("postgresql://nobody@127.0.0.1/none"),
    driver="psycopg2",
    pool="queue",
    table="poolproof_drill_0123456789ab",
    seed=0,
    trial=0,
)
with Service([{sys.executable!r}, "-c", {SLEEPER!r}], stage) as service:
    service.await_start(lambda: service.log().count("up") == 2)
    print(service.process.pid, flush=True)
    time.sleep(600)
"""


def members(group: int) -> list[int]:
    """List the processes of a group that have not ended."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            facts = (process / "stat").read_text()
        except OSError:  # it has ended meanwhile
            continue
        state, _parent, its_group = facts.rpartition(")")[2].split()[:3]
        if int(its_group) == group and state != "Z":
            found.append(int(process.name))
    return found


def test_service_ends_with_a_starter_that_is_killed():
    with subprocess.Popen(
        [sys.executable, "-c", STARTER], stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        group = int(starter.stdout.readline())
        assert len(members(group)) == 2
        starter.send_signal(signal.SIGKILL)
        eventually(lambda: not members(group))


def test_service_ends_with_its_block():
    stage = Stage(
        target=Target.parse("postgresql://nobody@127.0.0.1/none"),
        driver="psycopg2",
        pool="queue",
        table="poolproof_drill_0123456789ab",
        seed=0,
        trial=0,
    )
    with Service([sys.executable, "-c", SLEEPER], stage) as service:
        service.await_start(lambda: service.log().count("up") == 2)
        group = service.process.pid
        assert len(members(group)) == 2
    eventually(lambda: not members(group))
