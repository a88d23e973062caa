"""However a drill ends, it leaves nothing behind."""

from __future__ import annotations

import importlib.util
import signal
import time
from pathlib import Path

import pytest

from plugins.server import unavailable
from plugins.threads import eventually
from poolproof.drill import pooler

PLAY = ("--driver=psycopg2", "--incident=fork", "--trials=20")
EMBEDDED = 8  # the supervisor, the postmaster, its helpers: all below the drill


def gone(path: Path) -> bool:
    """Whether a directory is empty, after a moment of grace."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not list(path.iterdir()):
            return True
        time.sleep(0.05)
    return False


def test_a_signal_ends_server_directory_and_processes(start):
    drill = start(*PLAY)
    drill.until("trials in all")
    drill.until_descended(EMBEDDED + 4)
    assert drill.end(signal.SIGTERM) == 143
    assert "stopped by SIGTERM" in drill.rest
    assert "Traceback" not in drill.rest
    assert drill.left_behind() == {}
    assert list(drill.directory.iterdir()) == []


def test_a_second_signal_does_not_disturb_the_clean_up(start):
    drill = start(*PLAY)
    drill.until("trials in all")
    drill.until_descended(EMBEDDED + 4)
    drill.process.send_signal(signal.SIGINT)
    time.sleep(0.3)  # which is when people lose patience
    assert drill.end(signal.SIGINT) == 130
    assert "Traceback" not in drill.rest
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
    assert "stopped by Ctrl-C" in drill.rest
    assert "Traceback" not in drill.rest
    assert tables() == []
    assert drill.left_behind() == {}


@pytest.mark.parametrize(
    "incident",
    [
        pytest.param("restart", marks=pytest.mark.soak),
        "reap",
        pytest.param("lease-reaped", marks=pytest.mark.soak),
        "hang",
    ],
)
def test_a_signal_takes_the_servers_of_an_incident_along(start, url, incident):
    if "reap" in incident and pooler.program() is None:
        unavailable("no PgBouncer: install Debian's package 'pgbouncer'")
    below = {"restart": 8, "reap": 3, "lease-reaped": 30, "hang": 1}[incident]
    play = ("--driver=psycopg2", f"--incident={incident}", "--trials=2")
    drill = start(*play, POOLPROOF_DRILL_URL=url)
    drill.until("trials in all")
    drill.until_descended(below)
    assert drill.end(signal.SIGTERM) == 143
    assert "Traceback" not in drill.rest
    assert drill.left_behind() == {}
    assert gone(drill.directory)


def test_the_password_is_in_no_process_list_and_in_no_environment(start, server, url):
    """Not even in that of a process of root: PgBouncer's and PostgreSQL's is nobody."""
    if pooler.program() is None:
        unavailable("no PgBouncer: install Debian's package 'pgbouncer'")
    password = server.url.password
    play = ("--driver=psycopg2", "--incident=reap", "--trials=2")
    drill = start(*play, POOLPROOF_DRILL_URL=url, PGPASSWORD=password)
    drill.until("trials in all")
    found: dict[bytes, bytes] = {}

    def a_pooler_runs():
        for pid in drill.look():
            found[of_process(pid, "cmdline")] = of_process(pid, "environ")
        return any(b"pgbouncer.ini" in line for line in found)

    eventually(a_pooler_runs, seconds=50)
    assert any(b"poolproof.drill.trial" in line for line in found)
    for command, environment in found.items():
        assert password.encode() not in command
        # Trials are of our own user, and a libpq in them may need PGPASSWORD.
        assert b"POOLPROOF_DRILL_URL" not in environment, command
        if b"pgbouncer" in command or b"supervisor" in command:
            assert password.encode() not in environment, command
    drill.end(signal.SIGINT)


def of_process(pid: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:  # it has just ended
        return b""


def test_nothing_that_multiprocessing_leaves_is_left(start, url):
    if not importlib.util.find_spec("luigi"):
        unavailable("no Luigi")
    play = ("--driver=psycopg2", "--incident=luigi", "--trials=1", "--pool=poolproof")
    drill = start(*play, POOLPROOF_DRILL_URL=url)
    drill.until("went wrong")
    assert drill.process.wait(50) == 0
    assert list(drill.directory.iterdir()) == []
