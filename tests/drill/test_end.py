"""However a drill ends, it leaves nothing behind."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from plugins.server import unavailable
from poolproof.drill import pooler

pytestmark = pytest.mark.timeout(120)

PLAY = ("--driver=psycopg2", "--incident=fork", "--trials=20")
EMBEDDED = 8  # the keeper, the postmaster, its helpers: all below the drill


def gone(path: Path) -> bool:
    """Whether a directory is empty, after a moment of grace."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not list(path.iterdir()):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("number", "status", "name"),
    [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")],
)
def test_a_signal_ends_server_directory_and_processes(start, number, status, name):
    drill = start(*PLAY)
    drill.until("trials in all")
    drill.until_descended(EMBEDDED + 4)
    assert drill.end(number) == status
    assert f"stopped by {name}" in drill.rest
    assert "Traceback" not in drill.rest
    assert drill.left_behind() == {}
    assert list(drill.directory.iterdir()) == []


def test_a_second_signal_does_not_disturb_the_clean_up(start):
    drill = start(*PLAY)
    drill.until("trials in all")
    drill.until_descended(EMBEDDED + 4)
    drill.process.send_signal(signal.SIGINT)
    assert drill.end(signal.SIGINT) == 130
    assert drill.left_behind() == {}
    assert list(drill.directory.iterdir()) == []


def test_a_signal_while_the_server_starts_leaves_nothing(start):
    drill = start(*PLAY)
    drill.until("starting an embedded PostgreSQL")
    assert drill.end(signal.SIGINT) == 130
    assert drill.left_behind() == {}
    assert list(drill.directory.iterdir()) == []


def test_a_drill_that_is_killed_outright_takes_its_server_along(start):
    drill = start(*PLAY)
    drill.until("trials in all")
    drill.until_descended(EMBEDDED)
    assert drill.end(signal.SIGKILL) == -signal.SIGKILL
    assert gone(drill.directory)
    assert drill.left_behind() == {}


def test_a_signal_drops_the_table_from_a_database_of_ones_own(start, url, tables):
    drill = start(*PLAY, POOLPROOF_DRILL_URL=url)
    drill.until("trials in all")
    drill.until_descended(4)
    assert tables() != []
    assert drill.end(signal.SIGINT) == 130
    assert tables() == []
    assert drill.left_behind() == {}


@pytest.mark.parametrize("incident", ["restart", "reap", "hang"])
def test_a_signal_takes_the_servers_of_an_incident_along(start, url, incident):
    if incident == "reap" and pooler.program() is None:
        unavailable("no PgBouncer: install Debian's package 'pgbouncer'")
    below = {"restart": 8, "reap": 3, "hang": 1}[incident]
    play = ("--driver=psycopg2", f"--incident={incident}", "--trials=2")
    drill = start(*play, POOLPROOF_DRILL_URL=url)
    drill.until("trials in all")
    drill.until_descended(below)
    assert drill.end(signal.SIGTERM) == 143
    assert "Traceback" not in drill.rest
    assert drill.left_behind() == {}
    assert gone(drill.directory)


def test_the_password_is_in_no_process_list(start, server, url):
    drill = start(*PLAY, POOLPROOF_DRILL_URL=url)
    drill.until("trials in all")
    below = drill.until_descended(4)
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in below if lives(pid)]
    assert any(b"poolproof.drill.trial" in line for line in lines)
    assert not any(server.url.password.encode() in line for line in lines)
    drill.end(signal.SIGINT)


def lives(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").exists()
