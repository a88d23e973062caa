"""The rules of the crate: who may use whom, and where `unsafe` may stand.

Rust is read line by line with the comments taken out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from layers.breach import Breach

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["rules"]

# What each part of the crate may use of the crate. Who is not named may use nothing.
RUST_USES = {
    "process": set[str](),
    "pool": {"process"},
    "socket": {"process"},
    "fault": set[str](),
    "wire": {"process", "socket", "fault", "conninfo"},
    "conninfo": set[str](),
    "control": {"process", "socket", "fault", "conninfo"},
    "py": {"process", "pool", "socket", "fault", "wire", "control", "conninfo"},
}
MAY_BE_UNSAFE = ("src/process/", "src/socket/")


def rules(root: Path) -> Iterator[Breach]:
    """Yield what breaks a rule of the crate.

    Args:
        root: The checkout.
    """
    for rule in (_layers, _unsafe):
        yield from rule(root)


def _layers(root: Path) -> Iterator[Breach]:
    """PyO3 stays in src/py, tokio out of src/pool, and siblings do not meet."""
    for path in sorted((root / "src").rglob("*.rs")):
        inside = path.relative_to(root / "src")
        layer = inside.parts[0].removesuffix(".rs")
        depth = len(inside.parts) - (inside.name == "mod.rs")
        for number, line in _rust_code(path):
            if re.search(r"\bpyo3\b", line) and layer not in {"py", "lib"}:
                yield Breach(path, number, "pyo3 outside src/py and src/lib.rs")
            if re.search(r"\btokio", line) and layer == "pool":
                yield Breach(path, number, "tokio in src/pool")
            if layer == "lib":
                continue
            for used in _crate_modules(line, depth):
                if used in RUST_USES and used not in {layer, *RUST_USES[layer]}:
                    yield Breach(path, number, f"{layer} uses crate::{used}")


def _unsafe(root: Path) -> Iterator[Breach]:
    """`unsafe` stands in few files, and each one says why it is sound."""
    for path in sorted((root / "src").rglob("*.rs")):
        name = path.relative_to(root).as_posix()
        lines = path.read_text().splitlines()
        for number, line in _rust_code(path):
            if not re.search(r"\bunsafe\b", line):
                continue
            if not name.startswith(MAY_BE_UNSAFE):
                yield Breach(path, number, f"unsafe outside {', '.join(MAY_BE_UNSAFE)}")
            elif not _says_why_safe(lines, number - 1):
                yield Breach(path, number, "unsafe without a SAFETY comment above it")


def _rust_code(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines of a Rust file without their comments."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        yield number, re.sub(r"//.*", "", line)


def _crate_modules(line: str, depth: int) -> Iterator[str]:
    """Yield the crate's modules that a line names.

    Args:
        line: A line of code.
        depth: How many `super` lead from the file's module to the crate.
    """
    crate = rf"\b(?:crate|super(?:::super){{{depth - 1}}})::"
    yield from re.findall(rf"{crate}(\w+)", line)
    for group in re.findall(rf"{crate}\{{([^}}]*)", line):
        yield from re.findall(r"(?:^|,)\s*(\w+)", group)


def _says_why_safe(lines: list[str], index: int) -> bool:
    """Say whether the comments above a line's statement, or on it, hold its reason."""
    reason = re.compile(r"SAFETY:|# Safety")
    while not reason.search(lines[index]):
        index -= 1
        line = lines[index].strip() if index >= 0 else ""
        if not line or (line[-1] in ";{}," and not line.startswith(("//", "#["))):
            return False
    return True
