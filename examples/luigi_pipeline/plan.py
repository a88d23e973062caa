"""A planning pipeline: tasks that spend tokens, with writers in the background.

Each task runs in a process that Luigi forks for it. A thread of that process writes
heartbeats, another one progress, through the same engine as the task itself.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING

import luigi
import sqlalchemy as sa
from sqlalchemy import text

from poolproof.integrations import luigi as poolproof_luigi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TASKS = int(os.environ.get("PLAN_TASKS", "60"))
CALLS = 5

engine = sa.create_engine(os.environ["PLAN_DATABASE"], pool_size=3, max_overflow=2)
if os.environ.get("PLAN_POOL") != "queue":
    poolproof_luigi.install(engine)


def tokens_of(number: int, call: int) -> int:
    """Return what a call to the model costs; a real one would say so in its answer."""
    return 100 + 7 * number + call


class Done(luigi.Target):  # type: ignore[misc,unused-ignore]
    """Says whether a task's plan is in the database."""

    def __init__(self, number: int) -> None:
        self._number = number

    def exists(self) -> bool:
        """Look."""
        with engine.connect() as connection:
            query = text("select count(*) from plan where task = :task")
            return bool(connection.scalar(query, {"task": self._number}))


class Plan(luigi.Task):  # type: ignore[misc,unused-ignore]
    """Makes one part of the plan."""

    number = luigi.IntParameter()

    def output(self) -> Done:
        """Return where the plan will be."""
        return Done(self.number)

    def run(self) -> None:
        """Call the model, count its tokens, write the plan."""
        self.calls = 0
        with every(0.01, self.heartbeat), every(0.005, self.progress):
            for call in range(CALLS):
                time.sleep(0.01)  # the model thinks
                self.write("metric", value=tokens_of(self.number, call))
                self.calls += 1
            self.write("plan", value=os.getpid())

    def heartbeat(self) -> None:
        """Say that this task lives."""
        self.write("heartbeat", value=os.getpid())

    def progress(self) -> None:
        """Say how far this task is."""
        self.write("progress", value=self.calls)

    def write(self, table: str, value: int) -> None:
        """Write one row, and look whether the database answers to this question."""
        row = {"task": self.number, "value": value}
        with engine.begin() as connection:
            connection.execute(
                text(f"insert into {table} values (:task, :value)"),  # noqa: S608
                row,
            )
            echo = connection.execute(text("select :task, :value"), row).one()
        if (int(echo[0]), int(echo[1])) != (self.number, value):
            msg = f"asked for {row}, got {tuple(echo)}"
            raise RuntimeError(msg)


@contextlib.contextmanager
def every(seconds: float, act: Callable[[], None]) -> Iterator[None]:
    """Call *act* again and again in a thread, until the block is over."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(seconds):
            act()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def main() -> None:
    """Make the tables, as such programs do first, and run the tasks."""
    with engine.begin() as connection:
        for table in ("plan", "metric", "progress", "heartbeat"):
            connection.execute(text(f"create table {table} (task int, value int)"))
    opened = [engine.connect() for _ in range(3)]
    for connection in opened:
        connection.execute(text("select 1"))
    for connection in opened:
        connection.close()
    luigi.build(
        [Plan(number=n) for n in range(TASKS)],  # type: ignore[no-untyped-call,unused-ignore]
        workers=4,
        local_scheduler=True,
        log_level="WARNING",
    )


if __name__ == "__main__":
    main()
