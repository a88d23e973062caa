"""Players: they start together, are heard, and are ended when they hang."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from poolproof.drill.troupe import Troupe


def is_reaped(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_what_players_say_is_heard_in_order():
    def count(report):
        for n in range(500):
            report.say("n", str(n))

    with Troupe() as troupe:
        child = troupe.fork(
            "child", lambda report: [report.say("n", str(i)) for i in range(500)]
        )
        thread = troupe.thread("thread", lambda report: report.say("hello"))
        troupe.watch()
    assert child.values("n") == [str(i) for i in range(500)]
    assert child.status == 0
    assert thread.values("hello") == [""]
    assert troupe.hangs == 0


def test_nobody_acts_before_the_spectator_watches():
    def act(report):
        report.say("at", str(time.monotonic()))

    with Troupe() as troupe:
        players = [troupe.fork(f"child{n}", act) for n in range(3)]
        players.append(troupe.thread("thread", act))
        time.sleep(0.1)
        before = time.monotonic()
        troupe.watch()
    assert all(float(player.values("at")[0]) >= before for player in players)


def test_a_silent_child_is_killed_and_reaped():
    with Troupe(stall_s=2) as troupe:
        child = troupe.fork("child", lambda _: time.sleep(60))
        busy = troupe.fork("busy", lambda report: report.say("done"))
        troupe.watch()
    assert child.hung
    assert child.status == -signal.SIGKILL
    assert is_reaped(child.pid)
    assert not busy.hung
    assert troupe.hangs == 1


def test_a_child_that_speaks_does_not_hang_however_long_it_takes():
    def act(report):
        for _ in range(8):
            time.sleep(0.3)
            report.say("alive")

    with Troupe(stall_s=1.8) as troupe:
        child = troupe.fork("child", act)
        troupe.watch()
    assert not child.hung
    assert len(child.values("alive")) == 8


def test_a_chatterer_is_ended_at_the_bound():
    def act(report):
        while True:
            time.sleep(0.01)
            report.say("again")

    with Troupe(stall_s=0.3, bound_s=0.5) as troupe:
        child = troupe.fork("child", act)
        troupe.watch()
    assert child.hung


@pytest.mark.parametrize(("idle", "stall_s"), [(True, 30), (False, 0.8)])
def test_a_silent_player_of_an_idle_server_hangs_at_once(idle, stall_s):
    start = time.monotonic()
    with Troupe(is_idle=lambda: idle, silent_s=0.2, stall_s=stall_s) as troupe:
        child = troupe.fork("child", lambda _: time.sleep(60))
        troupe.watch()
    assert child.hung
    assert (time.monotonic() - start < stall_s) is idle


def test_a_child_that_dies_of_a_signal_is_an_error_and_no_hang():
    with Troupe() as troupe:
        child = troupe.fork("child", lambda _: os.kill(os.getpid(), signal.SIGUSR1))
        troupe.watch()
    assert not child.hung
    assert child.values("error") == [f"process died of signal {signal.SIGUSR1.value}"]


def test_an_exception_is_reported_with_its_class():
    def act(_report):
        raise ValueError("first line\nsecond line")

    with Troupe() as troupe:
        players = [troupe.fork("child", act), troupe.thread("thread", act)]
        troupe.watch()
    assert [p.values("error") for p in players] == [["ValueError: first line"]] * 2


def test_what_a_child_writes_to_stderr_is_heard():
    def act(_report):
        with open(2, "w", closefd=False) as stderr:  # pytest has replaced sys.stderr
            logging.StreamHandler(stderr).handle(record)
        os.write(2, b"from C\n")

    record = logging.makeLogRecord({"msg": "a log line"})

    with Troupe() as troupe:
        child = troupe.fork("child", act, hear_stderr=True)
        troupe.watch()
    assert child.stderr == b"a log line\nfrom C\n"


def test_a_stuck_thread_is_told_and_may_be_freed():
    free = threading.Event()
    with Troupe(stall_s=0.2) as troupe:
        troupe.thread("thread", lambda _: free.wait(30))
        troupe.watch()
        assert troupe.hangs == 1
        assert troupe.has_stuck_thread
        free.set()
        troupe.join(5)
        assert not troupe.has_stuck_thread


def test_leaving_early_leaves_no_child_behind():
    def leave():
        with Troupe() as troupe:
            pids.append(troupe.fork("child", lambda _: time.sleep(60)).pid)
            raise KeyError

    pids: list[int] = []
    with pytest.raises(KeyError):
        leave()
    assert is_reaped(pids[0])


def test_no_descriptor_is_left_open():
    def count() -> int:
        gc.collect()  # what earlier tests of this process have left
        return len(list(Path("/proc/self/fd").iterdir()))

    before = count()
    for _ in range(3):
        with Troupe(stall_s=0.2) as troupe:
            troupe.fork("child", lambda report: report.say("x"), hear_stderr=True)
            troupe.fork("hangs", lambda _: time.sleep(60), hear_stderr=True)
            troupe.thread("thread", lambda report: report.say("y"))
            troupe.watch()
    assert count() <= before
