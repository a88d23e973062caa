"""Writes docs/doctor/ from the table of the doctor's checks: a page each, and an index.

Without an argument it writes the pages; with ``--check`` it fails when one of them is
not what it would write, or belongs to no check.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from poolproof.doctor.catalogue import CHECKS

if TYPE_CHECKING:
    from poolproof.doctor.check import Check

FOLDER = Path(__file__).parent.parent / "docs" / "doctor"
SOURCE = "python/poolproof/doctor/catalogue.py"
MARK = f"<!-- Written by tools/doctor_pages.py from {SOURCE}: change it there. -->"
GROUPS = {
    "1": "The server",
    "2": "The way to it",
    "3": "The application",
    "4": "What lives now",
}
NEEDS = {
    "server": "A server that lets the doctor in.",
    "connection": "A connection, to ask more over.",
    "application": "`module:engine`; of a URL alone it is skipped.",
    "nothing": "The URL alone.",
}
WORST = {
    "error": "requests fail, or answers mix, now or under load",
    "warning": "they will, when something else happens",
    "note": "good to know",
}
INDEX = f"""\
# The doctor's checks

{MARK}

Each check has a code that never changes its meaning. [](../doctor.md) says how they are
run. *Worst* is the worst severity that a check finds; what it could not see is skipped,
and never fine.
"""


def title(check: Check) -> str:
    """Return a check's heading."""
    return f"{check.code}: {check.name}"


def page(check: Check) -> str:
    """Return the page of one check."""
    return f"""\
# {title(check)}

{MARK}

*Worst*: {check.worst} ({WORST[check.worst]}). *Needs*: {NEEDS[check.needs]}

## What it looks at

{check.looks}

## Why that is bad

{check.why}

## What to do

{check.fix} To leave the check out: `--ignore {check.code}`.

## Known problems

{check.problems}
"""


def index() -> str:
    """Return the index of all pages."""
    parts = [INDEX]
    for number, name in GROUPS.items():
        parts.append(
            f"\n## {number}xx: {name}\n\n| Check | Worst | Why |\n| --- | --- | --- |\n"
        )
        parts += [
            f"| [{title(check)}]({check.code}.md) | {check.worst} | {check.why} |\n"
            for check in CHECKS
            if check.code[2] == number
        ]
    pages = "\n".join(check.code for check in CHECKS)
    parts.append(f"\n```{{toctree}}\n:hidden:\n\n{pages}\n```\n")
    return "".join(parts)


def pages() -> dict[Path, str]:
    """Return every page by its path."""
    made = {FOLDER / f"{check.code}.md": page(check) for check in CHECKS}
    return {FOLDER / "index.md": index(), **made}


def main(arguments: list[str]) -> int:
    """Write the pages, or compare them."""
    wanted = pages()
    strays = [path for path in FOLDER.glob("*.md") if path not in wanted]
    if arguments == ["--check"]:
        wrong = [
            path
            for path, text in wanted.items()
            if not path.exists() or path.read_text(encoding="utf-8") != text
        ]
        for path in [*wrong, *strays]:
            print(f"{path.name} is not what the table says; run tools/doctor_pages.py")
        return 1 if wrong or strays else 0
    FOLDER.mkdir(exist_ok=True)
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")
    for path in strays:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
