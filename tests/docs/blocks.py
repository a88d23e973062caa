"""Read the fenced blocks out of a document, and run a document's blocks.

As a program it runs one document's blocks in order, in one namespace, as a reader
would who types them in:

    python -W error blocks.py PAGE NETLOC

A block that cannot run is preceded by `<!-- not run: the reason -->`.
"""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parents[2]
# The database that the documents speak of, and where it really is.
DOCUMENTED = "app@db/app"

_FENCE = re.compile(r"^(?P<fence>`{3,}|~{3,})\s*(?P<language>\S*)")
_NOT_RUN = re.compile(r"^<!-- not run: \S.* -->$")


class Block(NamedTuple):
    """A fenced block: its language, where its text begins, and the text."""

    language: str
    line: int
    text: str
    runs: bool


def pages() -> list[Path]:
    """Return every document that has blocks for readers."""
    top = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md"]
    found = sorted((CHECKOUT / "docs").rglob("*.md"))
    return top + [page for page in found if "_build" not in page.parts]


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a document in order."""
    found: list[Block] = []
    fence, language, start, before = "", "", 0, ""
    body: list[str] = []
    for number, line in enumerate(page.read_text().splitlines(), 1):
        match = _FENCE.match(line)
        if not fence and match:
            fence, language = match["fence"], match["language"]
            start, body = number + 1, []
        elif fence and line.strip() == fence:
            runs = not _NOT_RUN.match(before)
            found.append(Block(language, start, "\n".join(body) + "\n", runs))
            fence, before = "", ""
        elif fence:
            body.append(line)
        elif line.strip():
            before = line.strip()
    if fence:
        message = f"{page}:{start}: a block without an end"
        raise ValueError(message)
    return found


def run(page: Path, netloc: str) -> None:
    """Run the blocks of a document.

    Args:
        page: The document.
        netloc: What stands for `app@db/app`: user, host, port and database.
    """
    namespace: dict[str, object] = {"__name__": "__document__"}
    for block in blocks(page):
        if not block.runs:
            continue
        text = block.text.replace(DOCUMENTED, netloc)
        if block.language == "python":
            # The empty lines make a traceback show the document's own line.
            source = "\n" * (block.line - 1) + text
            exec(compile(source, str(page), "exec"), namespace)  # noqa: S102
        elif block.language == "console":
            for command in re.findall(r"^\$ (.+)$", text, re.MULTILINE):
                run_command(command)


def run_command(command: str) -> None:
    """Run a shell command in the checkout; of make, look only at what it would do."""
    if command.startswith("make "):
        command = f"make --dry-run {command.removeprefix('make ')}"
    subprocess.run(command, shell=True, check=True, cwd=CHECKOUT)  # noqa: S602


if __name__ == "__main__":
    # Luigi, at its import, of a setting that has no bearing on us.
    autoload = r"\s*Autoloading range tasks by default"
    warnings.filterwarnings("ignore", autoload, DeprecationWarning)
    run(Path(sys.argv[1]), sys.argv[2])
