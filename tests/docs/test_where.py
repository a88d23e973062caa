"""The table of places in CONTRIBUTING.md names files that exist."""

from __future__ import annotations

import re
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
ROWS_LEAST = 25


def rows():
    """Return the wishes of the table, each with the files that it names."""
    text = (CHECKOUT / "CONTRIBUTING.md").read_text()
    table = text.split("| you want to change … | open … |\n|---|---|\n")[1]
    lines = table.split("\n\n")[0].splitlines()
    cells = [line.strip("|").split("|") for line in lines]
    return {wish.strip(): re.findall(r"`([^`]+)`", files) for wish, files in cells}


def test_each_place_exists():
    found = rows()
    assert len(found) >= ROWS_LEAST
    assert all(found.values())
    absent = [
        place
        for places in found.values()
        for place in places
        if not (CHECKOUT / place).exists()
    ]
    assert absent == []


def test_the_architecture_names_every_folder():
    text = (CHECKOUT / "docs" / "architecture.md").read_text()
    package = CHECKOUT / "python" / "poolproof"
    folders = [
        path.name for path in package.iterdir() if (path / "__init__.py").exists()
    ]
    assert folders
    assert [name for name in folders if f"`{name}/`" not in text] == []
