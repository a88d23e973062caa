"""Find the Python interpreters that are there.

Looked for on the PATH and in pyenv's directory. One counts only when it runs
and says its version itself: a shim may exist and not run. Those that the machine lacks
may have been fetched from Debian's archive (`testing_root`).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import testing_root

# 3.10 is out of support since October 2026; it stays until our version 1.0.
SUPPORTED = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.15")
LINKS = Path(__file__).resolve().parent.parent / ".nox" / "pythons"
_NEW = ".new"

# The interpreter below a virtual environment, if it is one: what is built and
# made with it must outlive that environment.
_SAY = """
import sys
print(*sys.version_info[:2], sep=".")
print(getattr(sys, "_base_executable", sys.executable))
"""


def found() -> dict[str, Path]:
    """Return the supported versions that are there with their paths, oldest first."""
    return {
        version: path
        for version in SUPPORTED
        if (path := _first_that_runs(version)) is not None
    }


def fetched(machine: dict[str, Path]) -> dict[str, Path]:
    """Return those that were fetched and that *machine* lacks, oldest first."""
    return {
        version: path
        for version, path in testing_root.pythons().items()
        if version not in machine and _ask(path, version) is not None
    }


def _first_that_runs(version: str) -> Path | None:
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    directories = [Path(entry) for entry in os.get_exec_path()]
    # Each of pyenv's shims starts a dozen programs to find what is found below. And
    # those that were fetched are on the PATH of a session, and not the machine's.
    others = {path.parent for path in testing_root.pythons().values()}
    others.add(pyenv / "shims")
    directories = [entry for entry in directories if entry not in others]
    candidates = [entry / f"python{version}" for entry in directories]
    candidates += [entry / "python3" for entry in directories]
    candidates += sorted((pyenv / "versions").glob(f"{version}.*/bin/python"))
    for candidate in candidates:
        if candidate.exists() and (real := _ask(candidate, version)) is not None:
            return real
    return None


def _ask(candidate: Path, version: str) -> Path | None:
    """Return the interpreter behind *candidate* if it runs and is *version*."""
    try:
        answer = subprocess.run(
            [candidate, "-I", "-c", _SAY],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = answer.stdout.splitlines()
    if answer.returncode != 0 or lines[:1] != [version]:
        return None
    path = Path(lines[1])
    # One that `link` has put there stands for another: it must not become its own.
    return path.readlink() if path.parent == LINKS else path


def link(pythons: dict[str, Path], directory: Path = LINKS) -> Path:
    """Make *directory* hold `python3.X` for each of *pythons*, and nothing else.

    Put first on the PATH it gives every tool the same answer, without the other
    programs that stand beside an interpreter. What is right already is not touched, and
    what is not is replaced in one step: other processes use the directory meanwhile.

    Returns:
        The directory.
    """
    directory.mkdir(parents=True, exist_ok=True)
    wanted = {f"python{version}": path for version, path in pythons.items()}
    for there in directory.iterdir():
        if there.name not in wanted and not there.name.endswith(_NEW):
            there.unlink(missing_ok=True)
    for name, path in wanted.items():
        there = directory / name
        if there.is_symlink() and there.readlink() == path:
            continue
        new = directory / f"{name}-{os.getpid()}{_NEW}"
        new.unlink(missing_ok=True)
        new.symlink_to(path)
        new.replace(there)
    return directory
