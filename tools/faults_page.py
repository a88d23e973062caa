"""Writes docs/faults.md from the rows of the fault table.

Without an argument it writes the page; with ``--check`` it fails when the page is not
what it would write.
"""

from __future__ import annotations

import sys
from pathlib import Path

from poolproof import _native  # noqa: TID251 - shows the table as it is

PAGE = Path(__file__).parent.parent / "docs" / "faults.md"

HEAD = """\
# Faults

<!-- Written by tools/faults_page.py from src/fault/rows.rs: change it there. -->

What an error means stands in one table. `poolproof.Pool` looks each error up that
reaches SQLAlchemy's `handle_error` event; `poolproof.guard(engine)` makes engines with
any other pool do the same, sync or async. `poolproof.classify(error)` shows what the
table says, and `poolproof.on_fault(callback)` calls a function at each fault. Each
fault is one line of the logger `poolproof.guard`, without any text of the
application's: a warning when it cost this process a connection, otherwise information.

## What a fault costs

*Cost* is what is discarded: nothing, the connection that the error came from, or the
generation (every connection opened before now). *On other pools* is the cost where the
pool cannot look at its sockets: there a fault that strikes all connections costs them
all. *Retry* says what may be repeated: `reconnect` when nothing was sent, `whole_unit`
the whole transaction. *Outcome* says what became of the transaction. `by_phase` means:
not done, and the whole unit may be repeated; while connecting, connecting again is
enough; during a commit, or a statement that may commit by itself, unknown and never
repeated. `if_answered` means: not done if the server said why, otherwise unknown.

Nothing is discarded by an error while connecting, for there is nothing yet. What
SQLAlchemy takes for a disconnect is always discarded, whatever the table says.
"""

MIDDLE = """\
## How a fault is recognised

The first row all of whose conditions hold decides. A message counts only where there is
no SQLSTATE, unless the row names the SQLSTATE too; what stands in double quotes is left
out of it. So the words of the application, in a unique violation or in
`RAISE EXCEPTION`, are not taken for a fault; and SQLSTATEs and messages count only from
drivers of PostgreSQL. Messages are matched in English; in another language a fault is
still found where the driver gives the SQLSTATE, or says that the connection is closed.

An error of no row is an ordinary one, unless the driver says that the connection is
closed or SQLAlchemy takes it for a disconnect (`connection_lost`), or it is an
interruption such as `KeyboardInterrupt` (`interrupted`).
"""


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(cell(c) for c in line) + " |\n" for line in lines)


def cell(text: str) -> str:
    """Return the text as one cell can hold it."""
    return text.replace("|", "\\|")


def page() -> str:
    """Return the whole page."""
    prices = table(
        ["Fault", "Meaning", "Cost", "On other pools", "Retry", "Outcome"],
        [
            [f"`{fault}`", meaning, cost, blind, f"`{retry}`", f"`{outcome}`"]
            for fault, meaning, cost, blind, retry, outcome in _native.fault_prices()
        ],
    )
    rows = table(
        ["Fault", "Cause", "Recognised by"],
        [
            [f"`{fault}`", cause, " and ".join(tests)]
            for fault, tests, cause in _native.fault_rows()
        ],
    )
    return f"{HEAD}\n{prices}\n{MIDDLE}\n{rows}"


def main(arguments: list[str]) -> int:
    """Write the page, or compare it."""
    if arguments == ["--check"]:
        if PAGE.read_text(encoding="utf-8") == page():
            return 0
        print(f"{PAGE.name} is not what the table says; run tools/faults_page.py")
        return 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
