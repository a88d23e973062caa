"""A network namespace: packets pass, are lost without a word, and pass again."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from plugins.threads import eventually
from poolproof.drill import namespace
from poolproof.drill.namespace import Namespace


@pytest.fixture
def host():
    if (lacking := namespace.lacks()) is not None:
        pytest.skip(lacking)
    with Namespace() as made:
        yield made


def there_is(wire: str) -> bool:
    """Tell whether a wire is there; others come and go with tests beside this one."""
    shown = subprocess.run(
        ["ip", "link", "show", wire], capture_output=True, check=False
    )
    return shown.returncode == 0


@pytest.fixture
def pair(host):
    """Both ends of a connection to the other host."""
    with (
        host.listen() as listener,
        socket.create_connection(listener.getsockname(), 5) as near,
    ):
        far, _ = listener.accept()
        with far:
            near.settimeout(5)
            far.settimeout(5)
            yield near, far


def test_what_is_lost_arrives_when_packets_pass_again(host, pair):
    near, far = pair
    near.sendall(b"one")
    assert far.recv(3) == b"one"
    host.drop()
    near.sendall(b"two")
    far.settimeout(0.3)
    with pytest.raises(TimeoutError):
        far.recv(3)
    host.deliver()
    far.settimeout(10)
    assert far.recv(3) == b"two"


def test_nobody_answers_at_the_door_while_packets_are_lost(host):
    with host.listen() as listener:
        host.drop()
        with pytest.raises(TimeoutError):
            socket.create_connection(listener.getsockname(), 0.3)
        host.deliver()
        socket.create_connection(listener.getsockname(), 5).close()


def test_this_host_keeps_its_own_network(host):
    seen = host.inside(lambda: Path("/proc/thread-self/ns/net").readlink())
    ours = Path("/proc/self/ns/net").readlink()
    assert seen != ours
    for thread in threading.enumerate():
        path = Path(f"/proc/self/task/{thread.native_id}/ns/net")
        assert path.readlink() == ours


def test_closing_takes_the_wire_away_and_may_be_done_twice(host):
    other = Namespace().open()
    assert there_is(other._wire)
    other.close()
    other.close()
    assert not there_is(other._wire)


def test_the_wire_goes_with_a_process_that_is_killed(host):
    code = (
        "import os, signal\n"
        "from poolproof.drill.namespace import Namespace\n"
        "made = Namespace().open()\n"
        "print(made._wire, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )
    wire = done.stdout.strip()
    assert wire, done.stderr
    eventually(lambda: not there_is(wire), what=f"the end of {wire}")
