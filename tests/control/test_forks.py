"""A fork, or the end of the process, in the middle of the control plane's TLS."""

from __future__ import annotations

import subprocess
import sys

import pytest

from control.asking import as_text
from plugins.lying import PASSWORD

FORKS = 25  # of 100, eleven hung without


@pytest.fixture
def dsn(serve, root):
    """Return where to connect to, over TLS with a check."""
    return as_text(
        {
            "host": "127.0.0.1",
            "port": serve().port,
            "user": "u",
            "dbname": "d",
            "password": PASSWORD,
            "sslrootcert": root.path,
            "sslmode": "verify-ca",
        }
    )


FIRST = """
import os, random, signal, sys, threading, time
sys.path[:0] = sys.argv[3:]
from poolproof import ControlError
from poolproof.leases.table import LeaseTable
def connect():
    try:
        LeaseTable(sys.argv[1], "no_such_table").entries()
    except ControlError as error:
        return error.sqlstate == "XX000"
def child(work):
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        os._exit(not work())
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
def fork_while_connecting():
    threading.Thread(target=connect, daemon=True).start()
    time.sleep(random.random() * 0.03)
    return child(connect) == 0
ends = [child(fork_while_connecting) for _ in range(int(sys.argv[2]))]
print(sum(end != 0 for end in ends))
"""


@pytest.mark.fork
def test_a_child_can_speak_tls_whatever_the_parent_was_about(dsn):
    """OpenSSL has locks; a fork waits until the control thread holds none."""
    done = subprocess.run(
        [sys.executable, "-c", FIRST, dsn, str(FORKS), *sys.path],
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.stdout == b"0\n", done.stderr.decode()


ENDS = """
import sys, threading, time
sys.path[:0] = sys.argv[2:]
from control.asking import ask_control_plane
def connect():
    while True:
        ask_control_plane(sys.argv[1])
threading.Thread(target=connect, daemon=True).start()
time.sleep(0.3)
"""


def test_the_process_may_end_in_the_middle_of_it(dsn):
    done = subprocess.run(
        [sys.executable, "-c", ENDS, dsn, *sys.path],
        capture_output=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
