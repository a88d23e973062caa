"""Check that the code keeps to its layers (docs/architecture.md).

    python tools/check_layers.py [ROOT]

Each rule is a function that is given a checkout and yields what breaks it: those of the
package stand in layers/python.py, those of the crate in layers/rust.py, the one of the
knobs in layers/knobs.py.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from layers import knobs, python, rust
from layers.breach import Breach

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG = 400
WHY_LONG = re.compile("one (idea|table)")
HEADER_LINES = 30
CODE = ("src", "python", "tests", "bench", "tools")


def check(root: Path) -> list[Breach]:
    """Return every breach in the checkout *root*, in order of place."""
    rules = (rust.rules, python.rules, knobs.rules, length)
    return sorted({breach for rule in rules for breach in rule(root)})


def length(root: Path) -> Iterator[Breach]:
    """A file of more than 400 lines says at its top why it is one idea."""
    for folder in CODE:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in {".py", ".pyi", ".rs"}:
                continue
            lines = path.read_text().splitlines()
            header = " ".join(lines[:HEADER_LINES]).lower()
            if len(lines) > LONG and not WHY_LONG.search(header):
                what = (
                    f"{len(lines)} lines, and its top does not say why it is one idea"
                )
                yield Breach(path, 1, what)


def main(arguments: list[str]) -> int:
    """Print every breach; return 1 if there is one."""
    here = Path(__file__).resolve().parent.parent
    root = Path(arguments[0]).resolve() if arguments else here
    breaches = check(root)
    for path, line, what in breaches:
        print(f"{path.relative_to(root)}:{line}: {what}")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
