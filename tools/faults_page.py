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

Nothing is discarded by an error while connecting, for there is nothing yet; and while
connecting or pinging nothing of the caller's is under way, so its outcome is always
`not_done`. When a deadline of poolproof's own shut the connection, that costs this one
connection on any pool. What SQLAlchemy takes for a disconnect is always discarded,
whatever the table says.

`poolproof.Pool` discards a connection by shutting its socket first and closing it then,
so nothing is sent: neither a rollback nor a goodbye. An error that leaves it open
whether the connection is still in step (`suspect`, and any exception that is not the
driver's) costs nothing, but the pool asks the server before it lends the connection
again.
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
closed or SQLAlchemy takes it for a disconnect (`connection_lost`).
"""

OWN = """\
## Rows of your own

`poolproof.faults.register` adds a row: what the error means, and how it is recognised.
All of its conditions must hold. Such rows are looked at before the built-in ones, the
newest first, by every engine of the process, and a child of the process keeps them.

```python
import poolproof
from poolproof import Fault

# A job library that ends a job by an exception in the middle of whatever runs.
poolproof.faults.register(
    Fault.INTERRUPTED,
    exception="rq.timeouts.JobTimeoutException",
    cause="the time of a job of RQ is over",
)

# A proxy that speaks for itself.
remove = poolproof.faults.register(Fault.POOLER, message="odyssey: ")
remove()
```

- `sqlstate`: five characters, or the two of a class.
- `message`: what the first line of the driver's message, or the line of a failed
  connection attempt, contains outside of double quotes; looked at where there is no
  SQLSTATE, or one is given beside it.
- `exception`: a class, or its name with its module, which need not be imported;
  subclasses count.
- `driver`: only errors of this driver.
- `cause`: one line for the log and for `Verdict.cause`.

What a fault costs cannot be registered: choose the fault that costs what it should.
`Fault.NONE` makes an error an ordinary one. The function that `register` returns takes
the row out again. `poolproof.classify(error)` looks at rows of your own too.

## Deciding case by case

A function given to `poolproof.on_fault` may return a `Verdict`, which takes the place
of the table's. The functions are called in the order in which they were given; each
sees the verdict as it stands by then in `event.verdict`, and the last one that answers
decides. None leaves the verdict as it is; anything else is logged and ignored.

```python
import dataclasses


def one_connection_is_enough(event):
    if event.sqlstate == "57P01":  # somebody ends single sessions here, by hand
        return dataclasses.replace(event.verdict, cost="connection")


remove = poolproof.on_fault(one_connection_is_enough)
remove()
```

A smaller cost is obeyed as well, even where SQLAlchemy takes the error for a
disconnect. If the connection may be out of step (`corruption`, `interrupted`) that is
logged as a warning, and `poolproof.Pool` still asks the server before it lends the
connection again. Ordinary errors are no events; register a row to make them one.
`event.exception` is None for a fault that the pool saw by itself.
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
            [
                f"`{price.fault}`",
                price.meaning,
                price.cost,
                price.blind,
                f"`{price.retry}`",
                f"`{price.outcome}`",
            ]
            for price in _native.fault_prices()
        ],
    )
    rows = table(
        ["Fault", "Cause", "Recognised by"],
        [
            [f"`{fault}`", cause, " and ".join(tests)]
            for fault, tests, cause in _native.fault_rows()
        ],
    )
    return f"{HEAD}\n{prices}\n{MIDDLE}\n{rows}\n{OWN}"


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
