"""Looks for what a test leaves behind: threads, sockets, children, sessions."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import stat
import threading
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from poolproof.pool import maintenance_thread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plugins.server import Observer

SECONDS = 60.0  # how long what is ending may take to end


# The keeper's thread waits a second for something to do before it ends: once for each
# test here, where there is one at a time.
maintenance_thread.LINGERS_S = 0.02


def sockets() -> set[tuple[int, int]]:
    """Return the sockets of this process as pairs of descriptor and inode."""
    found = set()
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - the numbers are wanted
        try:
            status = os.fstat(int(name))
        except OSError:  # the descriptor of the listing itself, closed by now
            continue
        if stat.S_ISSOCK(status.st_mode):
            found.add((int(name), status.st_ino))
    return found


def described(number: int) -> str:
    """Say what a socket is, and who is at its other end."""
    try:
        with socket.socket(fileno=os.dup(number)) as one:
            return repr(one)
    except OSError as error:
        return f"{number}: {error}"


def children(processes: set[int]) -> set[int]:
    """Return which of these processes are our children, zombies included."""
    ours = set()
    for pid in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).ppid() == os.getpid():
                ours.add(pid)
    return ours


def threads() -> set[threading.Thread]:
    """Return the Python threads that are alive."""
    return set(threading.enumerate())


def left_behind(
    before: tuple[set[threading.Thread], set[tuple[int, int]], set[int]],
    observer: Observer | None,
) -> dict[str, Any]:
    """Return what is there now and was not there before, by kind."""
    found: dict[str, Any] = {
        "threads": threads() - before[0],
        "sockets": sockets() - before[1],
        "child processes": children(set(psutil.pids()) - before[2]),
        "sessions on the server": observer.backends() if observer else [],
    }
    return {kind: things for kind, things in found.items() if things}


def let_go_of_log_records(caplog: pytest.LogCaptureFixture) -> None:
    """Make captured log records plain text: they hold connections and tracebacks."""
    for when in ("setup", "call"):
        for record in caplog.get_records(when):  # type: ignore[arg-type]
            record.msg, record.args = record.getMessage(), None
            record.exc_info = None


@pytest.fixture
def no_leaks(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    """Fail the test when it leaves anything behind."""
    # What an earlier test has left to the collector is not this one's. What is still
    # there is left out of the collections to come: each takes a tenth of the time then,
    # and there are several for each test.
    gc.collect()
    gc.freeze()
    observer: Observer | None = None
    if "pg" in request.fixturenames:
        observer = request.getfixturevalue("observer")
        for pid in observer.backends():
            observer.end(pid)
    before = (threads(), sockets(), set(psutil.pids()))
    yield
    let_go_of_log_records(caplog)
    deadline = time.monotonic() + SECONDS
    gc.collect()
    while left := left_behind(before, observer):
        if time.monotonic() > deadline:
            ends = [described(number) for number, _ in left.get("sockets", ())]
            pytest.fail(f"left behind: {left}; {ends}")
        time.sleep(0.01)
        gc.collect()
