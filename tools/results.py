"""Runs the examples with each pool, and writes what they showed into README.md.

    python tools/results.py            run, write docs/results.json, then README.md
    python tools/results.py --write    README.md alone, from docs/results.json
    python tools/results.py --check    fail when README.md is not what would be written

What was measured elsewhere (`field` in docs/results.json) is kept as it is.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
README = CHECKOUT / "README.md"
RESULTS = CHECKOUT / "docs" / "results.json"
BEGIN = "<!-- results: written by `make numbers` -->\n"
END = "<!-- end of results -->\n"

POOLS = ("queue", "poolproof")
PACKAGES = (
    *("poolproof", "SQLAlchemy", "psycopg2-binary"),
    *("Flask", "gunicorn", "celery", "luigi"),
)
EXAMPLES = {
    "flask_app": ("Flask, Gunicorn with preload, 3 × 4 threads", "400 orders"),
    "celery_app": ("Celery, 4 prefork processes", "200 orders"),
    "luigi_pipeline": ("Luigi, 4 workers", "60 plans"),
}
# Of what an example prints, in the order in which it is told. What is right first.
RIGHT = re.compile(r"^ *(\d+) (right$|of \d+ plans made)")
TOLD = {
    "wrong": "wrong",
    "failed": "failed",
    "hung": "hung",
    "not tried": "not asked any more",
    "confirmed, but not in the table": "confirmed and lost",
    "answers to somebody else's question": "answers to another's question",
    "errors in the log": "errors",
    "and Luigi did not come to an end: tasks hang": "hung",
}
_PATIENCE_S = 300


def measure(example: str, pool: str) -> dict[str, Any]:
    """Run an example once; return how many were right, and what else it counted."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", f"examples/{example}", "--pool", pool],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        check=False,
    )
    if done.returncode not in {0, 1}:  # 1: the fault showed
        sys.exit(
            f"{example} --pool {pool} ended with {done.returncode}:\n{done.stderr}"
        )
    return counts(done.stdout)


def counts(printed: str) -> dict[str, Any]:
    """Read what an example printed."""
    found: dict[str, Any] = {"right": None, "faults": {}}
    for line in printed.splitlines():
        if right := RIGHT.match(line):
            found["right"] = int(right[1])
        number, _, words = line.strip().partition(" ")
        if words in TOLD and number.isdigit() and int(number):
            found["faults"][TOLD[words]] = int(number)
        elif line.strip() in TOLD:
            found["faults"][TOLD[line.strip()]] = "some"
    if found["right"] is None:
        sys.exit(f"not understood:\n{printed}")
    return found


def run() -> None:
    """Run every example with each pool, and keep the counts."""
    old = json.loads(RESULTS.read_text())
    rows = []
    for example, (what, asked) in EXAMPLES.items():
        row: dict[str, Any] = {"example": example, "what": what, "asked": asked}
        for pool in POOLS:
            print(f"examples/{example} --pool {pool}", flush=True)
            row[pool] = measure(example, pool)
        rows.append(row)
    new = {
        "date": dt.datetime.now(dt.timezone.utc).date().isoformat(),
        "machine": f"{platform.system()}, {os.cpu_count()} cores",
        "versions": {
            "Python": platform.python_version(),
            "PostgreSQL": postgresql(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        "rows": rows,
        "field": old["field"],
    }
    RESULTS.write_text(json.dumps(new, indent=2, ensure_ascii=False) + "\n")


def postgresql() -> str:
    """Return the version of the embedded PostgreSQL."""
    from poolproof.drill.server import installation  # noqa: PLC0415 - to run alone

    home = installation()
    assert home is not None  # noqa: S101 - the examples have run on it
    said = subprocess.check_output([home / "bin" / "postgres", "--version"], text=True)
    return said.split()[-1]


def told(result: dict[str, Any], asked: str) -> str:
    """Say one result in a table's cell."""
    if not result["faults"]:
        return f"**{result['right']} right**"
    faults = [f"{count} {word}" for word, count in result["faults"].items()]
    total = asked.split(maxsplit=1)[0]
    return f"{result['right']} of {total} right: " + ", ".join(faults)


def block(results: dict[str, Any]) -> str:
    """Return the table and the line below it, as README has them."""
    lines = [
        "| one run of | asked | `QueuePool` | `poolproof.Pool` |",
        "|---|---|---|---|",
    ]
    for row in results["rows"]:
        what = f"[{row['what']}](examples/{row['example']})"
        cells = (told(row[pool], row["asked"]) for pool in POOLS)
        lines.append(f"| {what} | {row['asked']} | {' | '.join(cells)} |")
    field = results["field"]
    for row in field["rows"]:
        cells = (told(row[pool], row["asked"]) for pool in POOLS)
        lines.append(f"| {row['what']} | {row['asked']} | {' | '.join(cells)} |")
    versions = ", ".join(f"{name} {is_}" for name, is_ in results["versions"].items())
    below = (
        "`make numbers` runs the examples anew; a race decides the counts of "
        f"`QueuePool`. These: {results['date']}, {results['machine']}, {versions}. "
        f"{field['note']}"
    )
    return "\n".join([*lines, "", below, ""])


def page(readme: str, results: dict[str, Any]) -> str:
    """Return README with its results replaced."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{block(results)}\n{END}{after}"


def main(arguments: list[str]) -> int:
    """Run and write, write, or compare."""
    if not arguments:
        with tempfile.TemporaryDirectory() as place:
            os.environ["TMPDIR"] = place
            run()
    readme = README.read_text()
    wanted = page(readme, json.loads(RESULTS.read_text()))
    if arguments == ["--check"]:
        if readme == wanted:
            return 0
        print("README.md is not as docs/results.json has it: tools/results.py --write")
        return 1
    README.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
