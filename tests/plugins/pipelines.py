"""Scripts for Luigi, each in a process of its own with everything imported."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

CONFIG = """
[core]
autoload_range=false
no_configure_logging=true
[worker]
wait_interval=0.05
wait_jitter=0
"""
HOST = Path(__file__).parent.parent / "integrations" / "piped.py"
# Python 3.12 warns of forks beside threads.
FORKS = ("-W", "ignore:This process:DeprecationWarning")


class Ran:
    """What a script told, and what it logged."""

    def __init__(self, out, log):
        self.log = log
        self.told = {}
        for word, *values in map(json.loads, out.splitlines()):
            self.told.setdefault(word, []).append(
                values[0] if len(values) == 1 else tuple(values)
            )

    def __getitem__(self, word):
        return self.told.get(word, [])


@pytest.fixture(scope="session")
def host(tmp_path_factory):
    """Run what forks a process for each script, with everything imported."""
    config = tmp_path_factory.mktemp("luigi") / "luigi.cfg"
    config.write_text(CONFIG)
    environment = {**os.environ, "LUIGI_CONFIG_PATH": str(config)}
    command = [sys.executable, "-W", "error", *FORKS, str(HOST)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def pipeline(host, pg_url, tmp_path):
    """Return a function that runs a script with Luigi, in a group of processes."""

    def run(script, workers=4, driver="psycopg2"):
        url = pg_url(driver, application_name="pipe")
        order = {
            "script": textwrap.dedent(script),
            "url": url.render_as_string(hide_password=False),
            "workers": workers,
            "out": str(tmp_path / "out"),
            "err": str(tmp_path / "err"),
        }
        host.stdin.write(json.dumps(order) + "\n")
        host.stdin.flush()
        pid = int(host.stdout.readline())
        ready, _, _ = select.select([host.stdout], [], [], 200)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        status = int(host.stdout.readline())
        log = (tmp_path / "err").read_text()
        assert ready, f"the script hung:\n{log}"
        assert status == 0, log
        return Ran((tmp_path / "out").read_text(), log)

    return run
