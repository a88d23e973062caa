"""Programs of Debian's testing: had without an installation, or left out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tools"))

import interpreters  # noqa: E402 - found by the line above
import testing_root  # noqa: E402 - as that


def make(tmp_path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the script with a cache directory that is empty."""
    return subprocess.run(
        [sys.executable, CHECKOUT / "tools" / "testing_root.py"],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path), **env},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def left_out(done: subprocess.CompletedProcess[str]) -> str:
    """Return why, which is said in one line, and is no failure."""
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()[-1]
    assert said.startswith("testing-root: ")
    assert "; left out: python3.14, python3.15, pgbouncer of Debian's" in said
    assert "Traceback" not in done.stderr
    return said


def test_without_apt_it_is_left_out(tmp_path):
    assert "no apt-get here" in left_out(make(tmp_path, PATH=str(tmp_path)))


@pytest.mark.skipif(
    not (
        shutil.which("apt-get")
        and shutil.which("uvx")
        and testing_root.KEYRING.exists()
    ),
    reason="this machine cannot have it at all",
)
def test_an_archive_out_of_reach_is_left_out_and_leaves_nothing_behind(tmp_path):
    archive = "http://127.0.0.1:1/debian"
    assert "apt-get ended with" in left_out(
        make(tmp_path, POOLPROOF_DEBIAN_MIRROR=archive, no_proxy="127.0.0.1")
    )
    (root,) = filter(Path.is_dir, tmp_path.glob("poolproof/debian-testing-*"))
    assert list(root.iterdir()) == []


def test_what_is_half_made_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    program = testing_root.directory() / testing_root.PROGRAMS["python3.15"]
    program.parent.mkdir(parents=True)
    program.symlink_to(sys.executable)
    assert testing_root.pythons() == {}
    assert interpreters.fetched({}) == {}


@pytest.mark.skipif(not testing_root.pythons(), reason="nothing was fetched")
@pytest.mark.parametrize("version", testing_root.PYTHONS)
def test_a_fetched_interpreter_runs_with_its_own_libraries(version):
    path = testing_root.pythons()[version]
    ask = (
        "import sys, ssl, ctypes, sqlite3, subprocess\n"
        "maps = open('/proc/self/maps').read()\n"
        "print(sys.version.split('.')[1], sys.prefix, sorted({line.split()[-1]\n"
        "      for line in maps.splitlines() if '/libc.so' in line}))\n"
        # What it starts is the machine's, with the machine's libraries.
        "print(subprocess.check_output(['sh', '-c', 'echo started']))\n"
    )
    done = subprocess.run(
        [path, "-I", "-c", ask], capture_output=True, text=True, check=True
    )
    root = testing_root.directory()
    said, started = done.stdout.splitlines()
    assert said.startswith(f"{version[2:]} {root}/usr ['{root}/usr/lib/")
    assert started == "b'started\\n'"
