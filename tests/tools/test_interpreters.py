"""Interpreters are found by running them, not by their names."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tools"))

import interpreters  # noqa: E402 - found by the line above
import testing_root  # noqa: E402

THIS = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def path(monkeypatch, tmp_path):
    """Return the only directory of the PATH; there is no pyenv."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    return directory


def shim(place: Path, text: str) -> None:
    """Put a shell script where a program is looked for."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f"#!/bin/sh\n{text}\n")
    place.chmod(0o755)


def test_a_shim_that_does_not_run_is_no_interpreter(path):
    shim(path / f"python{THIS}", "echo 'command not found' >&2; exit 127")
    assert interpreters.found() == {}


def test_a_name_that_is_another_version_is_no_interpreter(path):
    shim(path / "python3.11", "echo 3.9; echo /usr/bin/python3.9")
    assert interpreters.found() == {}


def test_an_interpreter_is_found_on_the_path(path):
    (path / f"python{THIS}").symlink_to(sys.executable)
    assert list(interpreters.found()) == [THIS]


def test_what_was_fetched_is_not_the_machines(path, monkeypatch):
    fetched = path / f"python{THIS}"
    fetched.symlink_to(sys.executable)
    monkeypatch.setattr(testing_root, "pythons", lambda: {THIS: fetched})
    assert interpreters.found() == {}


def test_an_interpreter_is_found_in_pyenv(path, tmp_path):
    place = tmp_path / "pyenv" / "versions" / f"{THIS}.99" / "bin" / "python"
    shim(place, f'exec "{sys.executable}" "$@"')
    assert list(interpreters.found()) == [THIS]


def test_the_interpreter_below_an_environment_is_meant(path):
    (path / f"python{THIS}").symlink_to(sys.executable)
    ask = "import sys; print(sys.prefix == sys.base_prefix)"
    (found,) = interpreters.found().values()
    done = subprocess.run([found, "-c", ask], capture_output=True, check=True)
    assert done.stdout == b"True\n"


def test_the_bootstrap_says_in_one_sentence_that_there_is_no_python(tmp_path):
    path = tmp_path / "bin"
    path.mkdir()
    tools = {tool: shutil.which(tool) for tool in ("sh", "dirname")}
    for tool, real in tools.items():
        (path / tool).symlink_to(real)
    done = subprocess.run(
        [CHECKOUT / "tools" / "bootstrap", "true"],
        env={"PATH": str(path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("bootstrap: no Python 3.10 or newer was found; ")
    assert done.stderr.count("\n") == 1


def test_what_is_linked_already_is_not_touched(tmp_path):
    """Other sessions start interpreters by these names meanwhile."""
    directory = tmp_path / "pythons"
    this = Path(sys.executable)
    interpreters.link({"3.12": this, "3.13": this}, directory)
    before = (directory / "python3.13").lstat()
    interpreters.link({"3.11": Path("/bin/sh"), "3.13": this}, directory)
    assert (directory / "python3.13").lstat().st_ino == before.st_ino
    interpreters.link({"3.11": this, "3.13": this}, directory)
    assert {one.name: one.readlink() for one in directory.iterdir()} == {
        "python3.11": this,
        "python3.13": this,
    }


def test_the_shims_of_pyenv_are_not_asked(path, tmp_path, monkeypatch):
    """They are slow; what they stand for is found in pyenv's directory."""
    shims = tmp_path / "pyenv" / "shims"
    shim(shims / f"python{THIS}", f': > {tmp_path}/asked; exec {sys.executable} "$@"')
    monkeypatch.setenv("PATH", f"{shims}:{path}")
    assert interpreters.found() == {}
    real = tmp_path / "pyenv" / "versions" / f"{THIS}.7" / "bin" / "python"
    shim(real, f'exec {sys.executable} "$@"')
    assert list(interpreters.found()) == [THIS]
    assert not (tmp_path / "asked").exists()


def test_a_session_of_a_session_finds_what_the_links_stand_for(monkeypatch, tmp_path):
    """A link to what was found would be one to itself."""
    directory = tmp_path / "pythons"
    monkeypatch.setattr(interpreters, "LINKS", directory)
    base = Path(sys._base_executable)
    interpreters.link({THIS: base}, directory)
    monkeypatch.setenv("PATH", str(directory))
    for _ in range(2):
        assert interpreters.found()[THIS] == base
        interpreters.link(interpreters.found(), directory)
