"""Read the fenced blocks out of a document, and run a document's blocks.

As a program it runs one document's blocks in order, in one namespace, as a reader
would who types them in:

    python -W error blocks.py PAGE NETLOC

Without arguments it imports what nearly every document does, and runs each document
that it is told of in a child of its own: `Reader` tells it.

A block that cannot run is preceded by `<!-- not run: the reason -->`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
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


class Reader:
    """A process that runs one document after the other, each in a fork.

    A child ends as an interpreter does, with all that its destructors say.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def read(self, page: Path, netloc: str, place: Path) -> tuple[int, str]:
        """Run a document's blocks; return the exit status, and what was said.

        Args:
            page: The document.
            netloc: Of the database.
            place: The directory in which they run.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.NamedTemporaryFile("r") as said:
            order = [str(page), netloc, str(place), said.name]
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            status = self._process.stdout.readline()
            return int(status), said.read()

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def environment() -> dict[str, str]:
    """Return the environment of a reader who has set nothing of ours."""
    return {k: v for k, v in os.environ.items() if k != "POOLPROOF"}


def serve() -> list[str]:
    """Fork for each document; return what a child has to run, to the parent nothing."""
    import psycopg2  # noqa: F401 - the children have these then
    import sqlalchemy.orm  # noqa: F401

    for line in sys.stdin:
        page, netloc, place, said = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.chdir(place)
            with open(os.devnull) as nothing, open(said, "w") as file:  # noqa: PTH123
                for ours, theirs in ((nothing, 0), (file, 1), (file, 2)):
                    os.dup2(ours.fileno(), theirs)
            return [page, netloc]
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201
    return []


if __name__ == "__main__":
    # Luigi, at its import, of a setting that has no bearing on us.
    autoload = r"\s*Autoloading range tasks by default"
    warnings.filterwarnings("ignore", autoload, DeprecationWarning)
    if chosen := sys.argv[1:] or serve():
        run(Path(chosen[0]), chosen[1])
