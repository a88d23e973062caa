"""The rule of the knobs: docs/knobs.md names the files that carry out each of them.

A file whose name is the knob's need not be named. What only tells of a knob (metrics,
integrations, the doctor) carries out nothing.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from layers.breach import Breach

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["rules"]

HEAD = "| knob | carried out in |\n|---|---|\n"
CARRY_OUT = ("drivers", "fork", "faults", "control", "pool")
# It has the value of every knob, checked, and no more.
ALL = "pool/settings.py"


def rules(root: Path) -> Iterator[Breach]:
    """Yield what the page of knobs does not say, or says wrongly.

    Args:
        root: The checkout.
    """
    package = root / "python" / "poolproof"
    page = root / "docs" / "knobs.md"
    if not (package / ALL).exists():
        return
    knobs = _knobs((package / ALL).read_text())
    named = _named(page.read_text() if page.exists() else "")
    for knob in sorted(knobs - named.keys()):
        yield Breach(page, 1, f"the page does not say which files carry out {knob}")
    for knob, (line, files) in named.items():
        if knob not in knobs:
            yield Breach(page, line, f"{knob} is no knob")
        for file in files:
            if what := _wrong(package, root, knob, file):
                yield Breach(page, line, what)
    yield from _unnamed(package, knobs, named)


def _unnamed(
    package: Path, knobs: set[str], named: dict[str, tuple[int, list[str]]]
) -> Iterator[Breach]:
    """Yield where a file carries out a knob that the page does not say of it."""
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package).as_posix()
        if inside == ALL or not inside.startswith(CARRY_OUT):
            continue
        for line, knob in _read(path.read_text(), knobs):
            _, files = named.get(knob, (0, ()))
            if path.stem != knob and inside not in files:
                what = f"{inside} reads {knob}, and docs/knobs.md does not name it"
                yield Breach(path, line, what)


def _knobs(text: str) -> set[str]:
    """Return the fields of `Settings`."""
    return {
        field.target.id
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef) and node.name == "Settings"
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    }


def _named(text: str) -> dict[str, tuple[int, list[str]]]:
    """Return the rows of the page's table of files: of each knob its line and files."""
    before, _, table = text.partition(HEAD)
    first = before.count("\n") + HEAD.count("\n") + 1
    rows = {}
    for line, row in enumerate(table.partition("\n\n")[0].splitlines(), first):
        _, knobs, files, _ = row.split("|")
        for knob in re.findall(r"`(\w+)`", knobs):
            rows[knob] = (line, re.findall(r"`([^`]+)`", files))
    return rows


def _wrong(package: Path, root: Path, knob: str, file: str) -> str:
    """Say what is wrong with a file that is named for a knob; nothing, if it is right.

    A file of the crate knows no names of knobs.
    """
    place = root / file if file.startswith("src/") else package / file
    if not place.exists():
        return f"{file} does not exist, where {knob} is to be carried out"
    if place.is_relative_to(package) and not re.search(
        rf"\b{knob}\b", place.stem + place.read_text()
    ):
        return f"{file} does not mention {knob}"
    return ""


def _read(text: str, knobs: set[str]) -> Iterator[tuple[int, str]]:
    """Yield where a file reads a setting, by line and knob."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Attribute) or node.attr not in knobs:
            continue
        of = node.value
        name = of.attr if isinstance(of, ast.Attribute) else getattr(of, "id", "")
        if name == "settings":
            yield node.lineno, node.attr
