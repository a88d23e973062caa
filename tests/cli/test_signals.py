"""Signals: the first ends, no second disturbs, a third one ends at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from plugins.threads import eventually
from poolproof._startup import is_command

COMMAND = (sys.executable, "-m", "poolproof", "drill")
SCRIPT = """
import os, signal, sys, time
from poolproof.cli.signals import Stopped, stoppable
try:
    with stoppable() as stop:
        try:
            with stop.may_end():
                print("working", flush=True)
                time.sleep(60)
        finally:
            print("cleaning", flush=True)
            sys.stdin.readline()
            print("clean", flush=True)
except Stopped as stopped:
    sys.exit(stopped.status)
"""


@pytest.fixture
def program():
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "working\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "cleaning\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_signal_is_answered_and_the_clean_up_goes_on(program):
    program.send_signal(signal.SIGINT)
    assert "still cleaning up; once more" in said(program)
    out, err = program.communicate("go on\n", timeout=200)
    assert out == "clean\n"
    assert program.returncode == 130
    assert "Traceback" not in err


def test_a_third_signal_ends_at_once_and_says_so(program):
    program.send_signal(signal.SIGINT)
    assert "still cleaning up" in said(program)
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=200)
    assert out == ""
    assert program.returncode == 130
    assert "before everything was cleaned up" in err


def said(program: subprocess.Popen[str]) -> str:
    """Return the next line that has words in it."""
    while not (line := program.stderr.readline()).strip():
        pass
    return line


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_while_it_is_imported_ends_it_without_a_traceback(workplace, times):
    process = subprocess.Popen(
        [*COMMAND, "--incident=fork"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(workplace)},
    )
    maps = Path(f"/proc/{process.pid}/maps")
    eventually(lambda: "/sqlalchemy/" in maps.read_text(), seconds=50)
    for _ in range(times):
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 130, err
    assert "Traceback" not in out + err
    assert err.strip() == "poolproof: stopped by Ctrl-C"
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "words", "expected"),
    [
        (["/usr/bin/poolproof", "drill"], ["python", "/usr/bin/poolproof"], True),
        (["-m", "drill"], ["python", "-X", "dev", "-m", "poolproof", "drill"], True),
        (["-m", "poolproof"], ["python", "-m", "pytest", "poolproof"], False),
        (["-c"], ["python", "-c", "import poolproof"], False),
        (["app.py"], ["python", "app.py", "poolproof"], False),
        ([], [], False),
    ],
)
def test_only_the_command_itself_takes_ctrl_c_over(argv, words, expected):
    assert is_command(argv, words) is expected


def test_a_signal_at_the_very_end_leaves_the_status_as_it_is(workplace):
    """As the second Ctrl-C of two, when the first has already done its work."""
    words = (
        "import signal, sys; from poolproof.cli import main;"
        " sys.argv[1:] = ['--version']"
    )
    late = "import atexit, os; atexit.register(os.kill, os.getpid(), signal.SIGINT)"
    done = subprocess.run(
        [sys.executable, "-c", f"{words}; {late}; main.command()"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TMPDIR": str(workplace)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
