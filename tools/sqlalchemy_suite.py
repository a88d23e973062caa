"""Fetch SQLAlchemy's own tests, which its wheels do not have, into the cache directory.

    python tools/sqlalchemy_suite.py VERSION

prints the folder of that version's source, unpacked once. Nothing of it is ours, and
nothing of it is committed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.util import find_spec
from pathlib import Path

import caches


def suite(version: str) -> Path:
    """Return the folder with the source of a version, fetched if it is not there.

    Args:
        version: As `sqlalchemy.__version__` says it.

    Raises:
        CalledProcessError: pip could not fetch it; what pip says is on stderr.
        LookupError: There is no pip.
    """
    place = caches.cache_directory() / f"sqlalchemy-{version}"
    with caches.locked(place):
        if not place.exists():
            with tempfile.TemporaryDirectory(dir=place.parent) as away:
                unpacked = unpack(fetch(version, Path(away)), Path(away))
                unpacked.rename(place)  # whole, or not at all
    return place


def fetch(version: str, into: Path) -> Path:
    """Download the source archive of a version.

    Args:
        version: The version.
        into: An empty folder.

    Returns:
        The archive.

    Raises:
        CalledProcessError: pip failed.
        LookupError: There is no pip.
    """
    options = ("--no-deps", "--no-binary=SQLAlchemy", f"--dest={into}")
    wanted = f"SQLAlchemy=={version}"
    quiet = ("--disable-pip-version-check", "--quiet")
    subprocess.run([*pip(), "download", *quiet, *options, wanted], check=True)
    (archive,) = into.glob("*.tar.gz")
    return archive


def pip() -> list[str]:
    """Return how pip is called: this interpreter's, or the tools' (tools/bootstrap).

    Raises:
        LookupError: There is none.
    """
    if find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    found = shutil.which("pip")
    if found is None:
        raise LookupError("no pip was found: run this through tools/bootstrap")
    return [found]


def unpack(archive: Path, into: Path) -> Path:
    """Unpack an archive, and return the one folder that is in it.

    Args:
        archive: A source archive.
        into: Where to.
    """
    with tarfile.open(archive) as opened:
        opened.extractall(into, filter="data")
    (folder,) = (found for found in into.iterdir() if found.is_dir())
    return folder


if __name__ == "__main__":
    print(suite(*sys.argv[1:]))
