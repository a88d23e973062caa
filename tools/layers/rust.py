"""The rules of the crate: who may use whom, and where `unsafe` may stand.

Rust is read line by line with the comments taken out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from layers.breach import Breach, circle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["rules"]

# What each part of the crate may use of the crate. Who is not named may use nothing.
RUST_USES = {
    "process": set[str](),
    "metrics": set[str](),
    "pool": {"process", "metrics"},
    "socket": {"process"},
    "fault": set[str](),
    "conninfo": set[str](),
    "tls": {"process", "socket", "conninfo"},
    "wire": {"process", "socket", "conninfo", "tls"},
    "control": {"process", "socket", "fault", "conninfo", "tls"},
    "py": {
        *("process", "pool", "socket", "fault", "wire", "control", "conninfo"),
        "metrics",
    },
}
MAY_BE_UNSAFE = ("src/process/", "src/socket/")


def rules(root: Path) -> Iterator[Breach]:
    """Yield what breaks a rule of the crate.

    Args:
        root: The checkout.
    """
    for rule in (_layers, _unsafe, _circle, _types):
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


def _circle(root: Path) -> Iterator[Breach]:
    """No file is in a circle with others; what a module re-exports does not count."""
    crate = _Crate(root / "src")
    if found := circle(crate.graph()):
        names = " > ".join("/".join(module) or "lib" for module in found)
        yield Breach(crate.files[found[0]], 1, f"a circle of files: {names}")


def _types(root: Path) -> Iterator[Breach]:
    """No two public types of one name."""
    seen: dict[str, Path] = {}
    for path in sorted((root / "src").rglob("*.rs")):
        for number, line in _rust_code(path):
            for name in PUBLIC_TYPE.findall(line):
                first = seen.setdefault(name, path)
                if first != path and not _binds(first, path):
                    what = f"{name} is the name of a type in {first.name} too"
                    yield Breach(path, number, what)


PUBLIC_TYPE = re.compile(r"^pub(?:\(\w+\))? (?:struct|enum|trait) (\w+)")


def _binds(one: Path, other: Path) -> bool:
    """Tell whether one of them is of the bridge, whose types bear Python's names."""
    return "py" in {*one.parts, *other.parts}


class _Crate:
    """The modules of a crate, each the file of its name."""

    def __init__(self, src: Path) -> None:
        self.files = {
            _module(path.relative_to(src)): path for path in sorted(src.rglob("*.rs"))
        }

    def graph(self) -> dict[tuple[str, ...], set[tuple[str, ...]]]:
        """Say for each module which others it uses, outside of its tests."""
        return {
            module: {
                used
                for words in _paths(path.read_text())
                if (used := self._resolve(words, module)) not in {None, module}
            }
            for module, path in self.files.items()
        }

    def _resolve(self, words: list[str], here: tuple[str, ...]) -> tuple[str, ...]:
        """Return the module that a path leads to: as much of it as is one."""
        base = {"crate": (), "self": here}.get(words[0], here)
        rest = [word for word in words if word not in {"crate", "self", "super"}]
        base = base[: len(base) - words.count("super")]
        found = (*base, *rest)
        while found not in self.files and found:
            found = found[:-1]
        return found


def _module(inside: Path) -> tuple[str, ...]:
    parts = inside.with_suffix("").parts
    return tuple(part for part in parts if part not in {"lib", "mod"})


def _paths(text: str) -> Iterator[list[str]]:
    """Yield the paths inside the crate that a file names, re-exports left out."""
    code = re.sub(r"//.*", "", text).split("#[cfg(test)]\nmod ")[0]
    code = re.sub(r"pub(\([^)]*\))?\s+use\s[^;]*;", "", code)
    for used in re.findall(r"\buse\s+((?:crate|super|self)\b[^;]*);", code):
        yield from _leaves([], used)
    code = re.sub(r"\buse\s[^;]*;", "", code)
    for used in re.findall(r"\b(?:crate|super|self)(?:::\w+)+", code):
        yield used.split("::")


def _leaves(before: list[str], tree: str) -> Iterator[list[str]]:
    """Yield the paths of the tree that stands behind a `use`."""
    tree = tree.strip()
    if tree.startswith("{"):
        for part in _parts(tree[1:-1]):
            yield from _leaves(before, part)
    elif found := re.match(r"(\w+)\s*::\s*(.*)", tree, re.DOTALL):
        yield from _leaves([*before, found[1]], found[2])
    else:
        yield [*before, tree.split(" as ")[0].strip()]


def _parts(text: str) -> Iterator[str]:
    """Yield what stands between the commas that are in no braces."""
    depth, part = 0, ""
    for letter in text:
        depth += (letter == "{") - (letter == "}")
        if letter == "," and not depth:
            yield part
            part = ""
        else:
            part += letter
    if part.strip():
        yield part


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
