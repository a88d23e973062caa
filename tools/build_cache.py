"""Share cargo's target directories between checkouts.

Sessions that run side by side want the same wheel: the first builds it.

Cargo decides by file times whether the crate must be compiled again, and does
not see that a target directory was last used by another checkout: it would
hand out that checkout's library. So what it compiles is a copy of the sources
beside the target directory, in which a file is written only where it differs,
and both are locked while they are used. The times of the copy then say what
cargo takes them to say; and since its path is always the same, the compiler
takes up what it has kept of its last run, whichever checkout that was for: a
fresh clone compiles what has changed since.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import caches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CHECKOUT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Target:
    """A target directory of cargo's, and the sources that are compiled in it.

    Attributes:
        environment: Variables for cargo and maturin.
        sources: The copy of the checkout's; nothing that is written there stays.
    """

    environment: dict[str, str]
    sources: Path

    @property
    def manifest(self) -> str:
        """Return the option by which cargo and maturin find the copy."""
        return f"--manifest-path={self.sources / 'Cargo.toml'}"


@contextlib.contextmanager
def target_directory(name: str) -> Iterator[Target]:
    """Hold the target directory *name*, with a copy of this checkout's sources.

    Args:
        name: What is built there; builds that would throw out each other's
            dependencies (PyO3's, for another Python) have different names.

    Yields:
        What cargo and maturin are told. Results must be copied, and test programs
        run, before the block ends.
    """
    directory = caches.cache_directory() / "target" / name
    with caches.locked(directory):
        directory.mkdir(exist_ok=True)
        target = Target({"CARGO_TARGET_DIR": str(directory)}, directory / "copy")
        last = directory / "last-used"
        # A clock that was set back makes what is written now look older than what is
        # built of it.
        was_set_back = last.exists() and last.stat().st_mtime > time.time()
        _bring_up_to_date(target.sources)
        if was_set_back:
            subprocess.run(
                ["cargo", "clean", "-q", "-p", "poolproof", target.manifest],
                env=os.environ | target.environment,
                check=True,
            )
        try:
            yield target
        finally:
            last.touch()


def _bring_up_to_date(copy: Path) -> None:
    """Write what differs in a copy of the sources, and remove what is no source."""
    wanted = {file.relative_to(CHECKOUT): file for file in (*_packed(), *_tests())}
    for file in sorted(copy.rglob("*"), reverse=True):  # a folder after what is in it
        if file.is_dir():
            with contextlib.suppress(OSError):
                file.rmdir()  # one that is empty
        elif file.relative_to(copy) not in wanted:
            file.unlink()
    for name, file in wanted.items():
        content = file.read_bytes()
        place = copy / name
        if not place.exists() or place.read_bytes() != content:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        shutil.copymode(file, place)


@contextlib.contextmanager
def wheel_directory(name: str, *key: str) -> Iterator[tuple[Path, Path | None]]:
    """Hold a directory of this checkout for one wheel, which several sessions want.

    Args:
        name: Of the directory, in .nox/built.
        key: What the wheel depends on beside the sources: the interpreter, options.

    Yields:
        The directory, and the wheel in it if it is made of these sources in this way.
        Else it is empty, and what is built must be put there before the block ends.
    """
    directory = CHECKOUT / ".nox" / "built" / name
    with caches.locked(directory):
        directory.mkdir(exist_ok=True)
        stamp = directory / "made-of"
        made_of = " ".join([wheel_digest(), *key])
        found = sorted(directory.glob("*.whl"))
        if found and stamp.exists() and stamp.read_text() == made_of:
            yield directory, found[0]
            return
        stamp.unlink(missing_ok=True)
        for old in found:
            old.unlink()
        yield directory, None
        stamp.write_text(made_of)


def wheel_digest() -> str:
    """Return a digest of everything that a wheel is made of."""
    return _digest_of(_packed())


def _packed() -> list[Path]:
    """Name what a wheel is made of."""
    names = ("Cargo.toml", "Cargo.lock", "build.rs", "pyproject.toml", "README.md")
    files = [CHECKOUT / name for name in names]
    files += sorted(CHECKOUT.glob("LICENSE*"))
    files += sorted((CHECKOUT / "src").rglob("*.rs"))
    files += sorted(
        file
        for file in (CHECKOUT / "python").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".so"
    )
    return [file for file in files if file.exists()]


def _tests() -> list[Path]:
    """Name what cargo compiles, or reads, beside what a wheel is made of."""
    files = [CHECKOUT / "clippy.toml"]
    for folder in ("tests", "benches", "examples"):
        files += sorted((CHECKOUT / folder).rglob("*.rs"))
    return [file for file in files if file.exists()]


def _digest_of(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        name = file.relative_to(CHECKOUT)
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()
