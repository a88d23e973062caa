"""`poolproof watch` and what must not hurt it: names, files, terminals."""

from __future__ import annotations

import contextlib
import fcntl
import json
import multiprocessing
import os
import pty
import subprocess
import sys
from io import StringIO

import pytest
from rich.console import Console

from plugins.threads import eventually
from poolproof.metrics.process_file import ProcessFile
from poolproof.watch import sources
from poolproof.watch.facts import Server, Session
from poolproof.watch.screen import screen
from poolproof.watch.sources import look

COMMAND = (sys.executable, "-m", "poolproof", "watch")
EVIL = "\x1b]0;owned\x07\x1b[2J[/red][link=x]\nline\u202e\x9b31m" + "x" * 5000
# A shell that says when its job has stopped, and continues it when told to.
SHELL = """
import fcntl, os, signal, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = os.fork()
if not job:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.argv[1], sys.argv[1:])
while True:
    _, status = os.waitpid(job, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        os._exit(os.waitstatus_to_exitcode(status))
    os.tcsetpgrp(0, os.getpid())
    whole_lines = bool(termios.tcgetattr(0)[3] & termios.ICANON)
    os.write(1, b"STOPPED canonical=%d" % whole_lines)
    os.read(0, 100)
    os.tcsetpgrp(0, job)
    os.killpg(job, signal.SIGCONT)
"""


def body(**more):
    samples = {"connections": [[["p", "idle"], 1]], "connections_max": [[["p"], 5]]}
    return {"pid": 7, "holders": [], "samples": samples, **more}


@pytest.fixture
def says(tmp_path):
    """Return a function that has a process say something: another, which lives."""
    # Its own process would end the lock by looking at it. A fork has imported already.
    context = multiprocessing.get_context("fork")
    started = []

    def write(text, end):
        file = ProcessFile(tmp_path)
        file.write(text)
        end.send("written")
        end.recv()  # until it is killed

    def say(text):
        ours, theirs = context.Pipe()
        process = context.Process(target=write, args=(text, theirs))
        process.start()
        started.append((process, ours, theirs))
        assert ours.recv() == "written"

    yield say
    for process, *ends in started:
        process.kill()
        process.join()
        process.close()
        for end in ends:
            end.close()


def test_names_steer_no_terminal(tmp_path, says):
    holder = [EVIL, EVIL, EVIL, 5, 1.0, True]
    samples = {"connections": [[[EVIL, "used"], 1]]}
    says(json.dumps(body(holders=[holder], samples=samples)).encode())
    view = look(tmp_path, None)
    session = sources._session((5, EVIL, "active", "Lock", EVIL, 1.0, 2.0, EVIL))
    stranger = Session(backend_pid=6, application=session.application, state=None)
    view = sources.dataclasses.replace(
        view,
        holders=tuple(
            sources.dataclasses.replace(one, session=session) for one in view.holders
        ),
        server=Server(shown="s", sessions=(session,)),
        strangers=(stranger,),
    )
    assert len(view.holders) == len(view.pools) == 1
    text = StringIO()
    Console(file=text, width=300).print(
        screen(view, order="h", height=None, keys=False)
    )
    for line in text.getvalue().split("\n"):
        assert line.isprintable(), line
        assert len(line) <= 300
    assert "[/red]" in text.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000,
        b"[]",
        b'{"samples": {}}',
        json.dumps(body(pid="seven")).encode(),
        json.dumps(body(holders=[["p", "t", None, 5, float("nan"), True]])).encode(),
        json.dumps(body(holders=[["p", "t", None, "x", 1.0, True]])).encode(),
        json.dumps(body(holders=[1])).encode(),
        json.dumps(
            body(samples={"connections": [[["p", "idle"], float("inf")]]})
        ).encode(),
    ],
)
def test_what_is_no_such_text_is_passed_over(tmp_path, says, text):
    says(text)
    says(json.dumps(body()).encode())
    (line,) = look(tmp_path, None).pools
    assert (line.process_id, line.idle, line.most) == (7, 1, 5)


def test_a_directory_with_garbage_is_read(tmp_path, says):
    says(json.dumps(body()).encode())
    os.mkfifo(tmp_path / "pipe.metrics")
    (tmp_path / "folder.metrics").mkdir()
    (tmp_path / "link.metrics").symlink_to("/dev/zero")
    (tmp_path / "empty.metrics").touch()
    (tmp_path / "noise.metrics").write_bytes(os.urandom(100_000))
    cut = ProcessFile(tmp_path)
    cut.write(json.dumps(body(pid=8)).encode())
    os.truncate(cut.path, 5000)
    done = subprocess.run(
        [*COMMAND, "--json", f"--directory={tmp_path}"],
        capture_output=True,
        check=True,
        timeout=100,
    )
    assert [one["process_id"] for one in json.loads(done.stdout)["pools"]] == [7]


@pytest.mark.parametrize("size", [(0, 0), (1, 1), (5, 3), (80, 2), (1000, 500)])
def test_a_terminal_may_have_any_size(tmp_path, says, size):
    says(json.dumps(body(holders=[["p", "t", "s", 5, 1.0, True]])).encode())
    width, height = size
    console = Console(file=StringIO(), width=width, height=height)
    view = look(tmp_path, None)
    console.print(screen(view, order="h", height=height, keys=True))


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-", "</dev/null"])
def test_streams_may_be_closed(tmp_path, closed):
    done = subprocess.run(
        [*("sh", "-c", f'exec "$@" {closed}', "sh"), *COMMAND, "--once"],
        env={**os.environ, "POOLPROOF_METRICS_DIR": str(tmp_path)},
        capture_output=True,
        check=False,
        timeout=100,
    )
    assert b"Traceback" not in done.stderr
    assert done.returncode in (0, 2)


def on_a_terminal(tmp_path, program, stdin=None):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", program, *COMMAND, "--every=0.2"],
        stdin=theirs if stdin is None else stdin,
        stdout=theirs,
        stderr=theirs,
        env={
            **os.environ,
            "TERM": "xterm",
            "POOLPROOF_METRICS_DIR": str(tmp_path),
        },
    )
    os.close(theirs)
    fcntl.fcntl(ours, fcntl.F_SETFL, os.O_NONBLOCK)
    seen = bytearray()

    def shows(word, times=1):
        def looks():
            with contextlib.suppress(BlockingIOError):
                seen.extend(os.read(ours, 65536))
            return seen.count(word) >= times

        eventually(looks)

    return ours, process, shows, seen


def test_ctrl_z_gives_the_terminal_back_and_fg_goes_on(tmp_path):
    ours, process, shows, seen = on_a_terminal(tmp_path, SHELL)
    try:
        shows(b"q quit")
        os.write(ours, b"\x1a")
        shows(b"STOPPED canonical=1")
        assert seen.index(b"\x1b[?1049l") < seen.index(b"STOPPED")
        os.write(ours, b"fg\n")
        shows(b"\x1b[?1049h", 2)
        os.write(ours, b"q")
        eventually(lambda: process.poll() is not None)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
