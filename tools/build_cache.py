"""Share cargo's target directories between checkouts.

Sessions that run side by side want the same wheel: the first builds it.

Cargo decides by file times whether the crate must be compiled again, and does
not see that a target directory was last used by another checkout: it would
hand out that checkout's library. So a directory is locked while it is used, and
carries a digest of the sources it was last used with; when that differs, our
crate's part is cleaned out first. The dependencies' part stays.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import caches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CHECKOUT = Path(__file__).resolve().parent.parent


@contextlib.contextmanager
def target_directory(name: str) -> Iterator[dict[str, str]]:
    """Hold the target directory *name* and give the environment that uses it.

    Args:
        name: What is built there; builds that would throw out each other's
            dependencies (PyO3's, for another Python) have different names.

    Yields:
        Environment variables for cargo and maturin. Results must be copied, and
        test programs run, before the block ends.
    """
    target = caches.cache_directory() / "target" / name
    with caches.locked(target):
        target.mkdir(exist_ok=True)
        environment = {"CARGO_TARGET_DIR": str(target)}
        stamp = target / "sources"
        digest = sources_digest()
        if not stamp.exists() or stamp.read_text() != digest:
            subprocess.run(
                ["cargo", "clean", "-q", "-p", "poolproof"],
                cwd=CHECKOUT,
                env=os.environ | environment,
                check=True,
            )
            stamp.write_text(digest)
        yield environment


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


def sources_digest() -> str:
    """Return a digest of everything that cargo compiles from this checkout."""
    files = [CHECKOUT / "Cargo.toml", CHECKOUT / "Cargo.lock", CHECKOUT / "build.rs"]
    for folder in ("src", "tests", "benches", "examples"):
        files += sorted((CHECKOUT / folder).rglob("*.rs"))
    return _digest_of(files)


def wheel_digest() -> str:
    """Return a digest of everything that a wheel is made of."""
    files = [CHECKOUT / "Cargo.toml", CHECKOUT / "Cargo.lock", CHECKOUT / "build.rs"]
    files += [CHECKOUT / "pyproject.toml", CHECKOUT / "README.md"]
    files += sorted(CHECKOUT.glob("LICENSE*"))
    files += sorted((CHECKOUT / "src").rglob("*.rs"))
    files += sorted(
        file
        for file in (CHECKOUT / "python").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".so"
    )
    return _digest_of(files)


def _digest_of(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        if file.exists():
            content = file.read_bytes()
            name = file.relative_to(CHECKOUT)
            digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()
