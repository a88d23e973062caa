"""`poolproof watch` on a terminal: its keys, its signals, its size."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time

import pytest

from plugins.threads import eventually
from poolproof.watch.facts import HeldConnection, PoolLine, View
from poolproof.watch.screen import screen

COMMAND = (sys.executable, "-m", "poolproof", "watch")
# Ctrl-C is for whom the terminal belongs to.
ON_A_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
ALTERNATE, BACK = b"\x1b[?1049h", b"\x1b[?1049l"
STYLED = re.compile(rb"\x1b\[[0-9;]*m")


class Terminal:
    """A program on a pseudo terminal of 80 columns and 24 lines."""

    def __init__(self, *args, command=COMMAND, **environment):
        self.ours, theirs = pty.openpty()
        self.before = termios.tcgetattr(theirs)
        self.theirs = theirs
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_A_TERMINAL, *command, *args],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={
                **os.environ,
                "TERM": "xterm-256color",
                "COLUMNS": "80",
                "LINES": "24",
                **environment,
            },
        )
        self.seen = b""

    def read(self):
        while select.select([self.ours], [], [], 0.05)[0]:
            self.seen += os.read(self.ours, 65536)
        return self.seen

    def shows(self, *words):
        eventually(lambda: all(word in self.read() for word in words))

    def type(self, text):
        os.write(self.ours, text)

    def ended(self):
        """Return the exit status, and see that the terminal is as it was."""
        eventually(lambda: self.read() is not None and self.process.poll() is not None)
        assert termios.tcgetattr(self.theirs) == self.before
        assert self.seen.count(ALTERNATE) == self.seen.count(BACK) == 1
        assert b"Traceback" not in self.seen
        return self.process.returncode

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def terminal(application, directory):
    made = []

    def make(*args, **environment):
        made.append(
            Terminal(*args, POOLPROOF_METRICS_DIR=str(directory), **environment)
        )
        made[-1].shows(ALTERNATE, b"report")
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_q_quits(terminal):
    shown = terminal()
    shown.type(b"q")
    assert shown.ended() == 0


# Where a look takes longer than the time from one to the next.
SLOW = """
import time
from poolproof.cli.main import command
from poolproof.watch import sources
look = sources.look
sources.look = lambda *given: time.sleep(0.3) or look(*given)
command()
"""


def test_a_key_is_heard_where_a_look_takes_longer_than_its_turn(terminal):
    shown = terminal("--every=0.1", command=(sys.executable, "-c", SLOW, "watch"))
    shown.type(b"s")
    shown.shows(b"sorted by scope")
    shown.type(b"q")
    assert shown.ended() == 0


# A machine that was just started.
YOUNG = """
import time
clock, start = time.monotonic, time.monotonic()
time.monotonic = lambda: clock() - start
from poolproof.cli.main import command
command()
"""


@pytest.mark.parametrize("command", [COMMAND, (sys.executable, "-c", YOUNG, "watch")])
def test_a_key_sorts_at_once(terminal, command):
    shown = terminal("--every=600", command=command)
    shown.shows(b"sorted by held")
    shown.type(b"s")
    shown.shows(b"sorted by scope")
    shown.type(b"xp")
    shown.shows(b"sorted by process")
    shown.type(b"q")
    assert shown.ended() == 0


def test_ctrl_c_ends_it_clean(terminal):
    shown = terminal()
    shown.type(b"\x03")
    assert shown.ended() == 128 + signal.SIGINT


def test_a_signal_leaves_the_terminal_as_it_was(terminal):
    shown = terminal()
    shown.process.send_signal(signal.SIGTERM)
    assert shown.ended() == 128 + signal.SIGTERM


def test_no_colour_where_none_is_wanted(terminal):
    shown = terminal("--every=0.1", NO_COLOR="1")
    time.sleep(0.3)
    shown.type(b"q")
    assert shown.ended() == 0
    colours = {
        code
        for style in STYLED.findall(shown.seen)
        for code in style[2:-1].split(b";")
        if code and 30 <= int(code) <= 107
    }
    assert not colours


def test_a_small_terminal_is_not_overrun(directory):
    from io import StringIO

    from rich.console import Console

    holders = tuple(
        HeldConnection(
            process_id=n,
            pool="p",
            thread="t",
            scope=None,
            backend_pid=n,
            held_s=float(n),
            is_busy=False,
        )
        for n in range(500)
    )
    pools = tuple(PoolLine(process_id=n, pool="p", waiting=3) for n in range(200))
    view = View(directory=str(directory), pools=pools, holders=holders)
    for height in (20, 24, 60):
        text = StringIO()
        console = Console(file=text, width=80, height=height)
        console.print(screen(view, order="h", height=height, keys=True))
        assert height - 6 <= len(text.getvalue().splitlines()) <= height
        assert "more" in text.getvalue()
