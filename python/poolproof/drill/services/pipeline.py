"""The pipeline that the drill has Luigi run: the program, its tasks, and their report.

Each task asks for tokens, writes a row and commits, while a thread of its process uses
the engine too. Every fifth task also writes a row and rolls it back. Some tasks fail on
purpose, and some are killed, with a row written and not committed. What a task was told
it appends to a file, a line for each fact.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import luigi
from sqlalchemy import text

from poolproof.drill.player import first_line
from poolproof.drill.service import taken_over
from poolproof.drill.stage import checked
from poolproof.drill.traffic import warm

if TYPE_CHECKING:
    from sqlalchemy import Connection

FAILS: Final = 10
"""The task with this number fails, and each that is so many later."""

DIES: Final = 25
"""The task with this number is killed, and each that is so many later."""

ASKS: Final = 4
_ROLLS_BACK: Final = 5
_BEAT_S: Final = 0.002
_ASK: Final = text("SELECT CAST(:token AS text)")

stage = taken_over()
engine = stage.engine(
    pool_size=int(os.environ["PIPELINE_POOL_SIZE"]),
    max_overflow=int(os.environ["PIPELINE_MAX_OVERFLOW"]),
)
if stage.pool == "poolproof":
    from poolproof.integrations.luigi import install

    install(engine)


def is_to_die(number: int) -> bool:
    """Tell whether a task is killed on purpose."""
    return number % DIES == DIES - 1


def is_to_fail(number: int) -> bool:
    """Tell whether a task fails on purpose."""
    return number % FAILS == FAILS - 1 and not is_to_die(number)


def row_of(number: int) -> str:
    """Return the id of the row that a task is to write."""
    return f"{stage.tag}/{number}"


def tell(word: str, value: str) -> None:
    """Append one fact to the report; short enough to be whole among others'."""
    line = json.dumps([word, value[:600]]) + "\n"
    fd = os.open("report", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


class InsertedRow(luigi.Target):  # type: ignore[misc,unused-ignore]
    """A row that is in the drill's table, or is not."""

    def __init__(self, row: str) -> None:
        self._row = row

    def exists(self) -> bool:
        """Look."""
        query = text(f"SELECT count(*) FROM {checked(stage.table)} WHERE id = :id")  # noqa: S608 (the name is checked)
        with engine.connect() as connection:
            return bool(connection.scalar(query, {"id": self._row}))


class Step(luigi.Task):  # type: ignore[misc,unused-ignore]
    """One task of the pipeline."""

    number = luigi.IntParameter()

    def output(self) -> InsertedRow:
        """Return the row that this task writes."""
        return InsertedRow(row_of(self.number))

    def run(self) -> None:
        """Ask and write, while a thread asks as well."""
        over = threading.Event()
        thread = threading.Thread(target=self._beat, args=(over,), daemon=True)
        thread.start()
        try:
            self._write()
        finally:
            over.set()
            thread.join()

    def _write(self) -> None:
        row = row_of(self.number)
        with engine.connect() as connection:
            for n in range(ASKS):
                _ask(connection, f"{row}/{n}")
            if is_to_die(self.number) or is_to_fail(self.number):
                tell("never", row)
                connection.execute(stage.insert(), {"id": row})
                if is_to_die(self.number):
                    os.kill(os.getpid(), signal.SIGKILL)
                raise RuntimeError("on purpose")
            if self.number % _ROLLS_BACK == 0:
                tell("never", f"{row}/back")
                connection.execute(stage.insert(), {"id": f"{row}/back"})
                connection.rollback()
            connection.execute(stage.insert(), {"id": row})
            connection.commit()
        tell("committed", row)

    def _beat(self, over: threading.Event) -> None:
        """Look at the database again and again, as a heartbeat writer does."""
        n = 0
        while not over.wait(_BEAT_S):
            n += 1
            try:
                with engine.connect() as connection:
                    _ask(connection, f"{row_of(self.number)}/beat/{n}")
            except Exception as error:  # noqa: BLE001 (every surfaced error is told)
                tell("failed", f"beat of {self.number}: {first_line(error)}")
                return


def _ask(connection: Connection, token: str) -> None:
    rows = [tuple(row) for row in connection.execute(_ASK, {"token": token})]
    if rows != [(token,)]:
        tell("wrong", f"asked for {token}, got {rows}")


def _on_success(task: Step) -> None:
    tell("done", str(task.number))


def _on_failure(task: Step, error: BaseException) -> None:
    if not is_to_fail(task.number):
        tell("failed", f"task {task.number}: {first_line(error)}")
    tell("done", str(task.number))


def _on_process_failure(task: Step, error: str) -> None:
    if not is_to_die(task.number):
        tell("failed", f"task {task.number}: {error}")
    tell("done", str(task.number))


def main() -> None:
    """Warm the pool, and have Luigi run the tasks in processes forked from this one."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("tasks", type=int)
    parser.add_argument("workers", type=int)
    arguments = parser.parse_args()
    luigi.Task.event_handler(luigi.Event.SUCCESS)(_on_success)
    luigi.Task.event_handler(luigi.Event.FAILURE)(_on_failure)
    luigi.Task.event_handler(luigi.Event.PROCESS_FAILURE)(_on_process_failure)
    warm(engine, int(os.environ["PIPELINE_POOL_SIZE"]))
    luigi.build(
        [Step(number=n) for n in range(arguments.tasks)],  # type: ignore[no-untyped-call,unused-ignore]
        workers=arguments.workers,
        local_scheduler=True,
        log_level="WARNING",
    )
    Path("over").touch()


if __name__ == "__main__":
    main()
