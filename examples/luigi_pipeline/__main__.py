"""A planning pipeline under Luigi, with four workers, held to account in the end.

    python examples/luigi_pipeline
    python examples/luigi_pipeline --pool queue

It starts a PostgreSQL of its own and runs `plan.py` (`pip install
".[drill,luigi]"`): 60 tasks, each in a process that Luigi forks for it, while
threads write heartbeats and progress. In the end the tokens in the database are
compared with those that were spent.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from poolproof.drill.server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE = Path(__file__).resolve().parent
CALLS = 5
# Without a new plan for so long, what has not ended hangs.
PATIENCE_S = 10.0
START_S = 20.0


def run(engine: sa.Engine, environment: Mapping[str, str], log: Path) -> bool:
    """Run the pipeline; say whether it came to an end."""
    with log.open("w") as output:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, str(HERE / "plan.py")],
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        seen, since = (False, 0), time.monotonic() + START_S
        while process.poll() is None and time.monotonic() - since < PATIENCE_S:
            now = (count(engine, "metric") > 0, count(engine, "plan"))
            if now != seen:
                seen, since = now, time.monotonic()
            time.sleep(0.05)
        return process.poll() is not None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def count(engine: sa.Engine, table: str, what: str = "count(*)") -> int:
    """Return a number of a table; 0 while there is none."""
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table(table):
            return 0
        query = sa.text(f"select coalesce({what}, 0) from {table}")  # noqa: S608
        return int(connection.scalar(query) or 0)


def spent(tasks: int) -> int:
    """Return how many tokens so many tasks spend."""
    return sum(100 + 7 * task + call for task in range(tasks) for call in range(CALLS))


def report(engine: sa.Engine, log: str, tasks: int, *, ended: bool) -> bool:
    """Print what came of it; say whether all went right."""
    plans = count(engine, "plan", "count(distinct task)")
    tokens = count(engine, "metric", "sum(value)")
    wrong = log.count("RuntimeError: asked for")
    print(f"{plans:6} of {tasks} plans made")
    print(f"{tokens:6} tokens counted, of {spent(tasks)} spent")
    print(f"{wrong:6} answers to somebody else's question")
    print(f"{log.count('Traceback'):6} errors in the log")
    print(f"{count(engine, 'heartbeat'):6} heartbeats")
    print(f"{count(engine, 'progress'):6} rows of progress")
    if not ended:
        print("       and Luigi did not come to an end: tasks hang")
    everything = (tasks, spent(tasks))
    return ended and (plans, tokens) == everything and "Traceback" not in log


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--pool", choices=["poolproof", "queue"], default="poolproof")
    parser.add_argument("--tasks", type=int, default=60, help="default: 60")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedServer() as server,
    ):
        url = server.url.set(drivername="postgresql+psycopg2")
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        log = Path(folder) / "luigi.log"
        environment = {
            "PLAN_DATABASE": url.render_as_string(hide_password=False),
            "PLAN_POOL": arguments.pool,
            "PLAN_TASKS": str(arguments.tasks),
            "LUIGI_CONFIG_PATH": str(HERE / "luigi.cfg"),
        }
        ended = run(engine, environment, log)
        if ended and not count(engine, "heartbeat"):
            print(f"the pipeline did not start:\n{log.read_text()}", file=sys.stderr)
            return 2
        fine = report(engine, log.read_text(), arguments.tasks, ended=ended)
        if not fine and arguments.pool == "poolproof":
            print(log.read_text(), file=sys.stderr)
    print(f"{arguments.pool}: {'every token counted' if fine else 'THE FAULT SHOWED'}")
    return 0 if fine else 1


if __name__ == "__main__":
    # However it is told to end, what it has started ends first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        status = main()
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
        print("stopped by Ctrl-C", file=sys.stderr)
    sys.exit(status)
