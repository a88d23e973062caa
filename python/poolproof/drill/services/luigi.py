"""Luigi, run over a pipeline in processes that are forked with warm connections."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from poolproof.drill.pace import is_over
from poolproof.drill.service import Book, Crowd, Service, ServiceOutcome, settle

if TYPE_CHECKING:
    from poolproof.drill.stage import Stage

_LOOK_S: Final = 0.02
_START_S: Final = 20.0  # for the first task, on top
_CONFIG: Final = """
[core]
autoload_range=false
no_configure_logging=true
[worker]
wait_interval=0.05
wait_jitter=0
send_failure_email=false
"""


def serve(
    stage: Stage,
    *,
    tasks: int = 200,
    workers: int = 4,
    pool_size: int = 2,
    max_overflow: int = 1,
    patience_s: float = 20.0,
) -> ServiceOutcome:
    """Have ``luigi.build`` run the tasks; hold what they were told against the rows.

    Args:
        stage: The trial's stage.
        tasks: How many tasks, 1 or more.
        workers: Luigi's ``workers``, 2 or more: how many tasks run at a time, each in
            a process that is forked for it.
        pool_size: Connections that are open when the first task is forked; 1 or more.
        max_overflow: As `create_engine` has it, 0 or more.
        patience_s: After so many seconds in which no task has ended, the others hang.
    """
    with tempfile.TemporaryDirectory() as place, Crowd(stage) as crowd:
        folder = Path(place)
        (folder / "luigi.cfg").write_text(_CONFIG)
        report = folder / "report"
        report.touch()
        module = "poolproof.drill.services.pipeline"
        with Service(
            [sys.executable, "-m", module, str(tasks), str(workers)],
            stage,
            environment={
                "LUIGI_CONFIG_PATH": str(folder / "luigi.cfg"),
                "PIPELINE_POOL_SIZE": str(pool_size),
                "PIPELINE_MAX_OVERFLOW": str(max_overflow),
            },
            cwd=folder,
        ) as service:
            _await_end(service, report, patience_s)
            went_well = (folder / "over").exists()
            log = service.log()
        book = _read(report, tasks)
        if not went_well and not book.hangs:
            last = log.strip().splitlines()[-1:] or ["it said nothing"]
            book.failed.append(f"Luigi ended before its time: {last[0]}")
    return settle(
        stage, book, crowd, allowed=(workers + 1) * (pool_size + max_overflow)
    )


def _await_end(service: Service, report: Path, patience_s: float) -> None:
    """Wait for the program to end, for as long as tasks end."""
    count, since = 0, time.monotonic() + _START_S
    while service.process.poll() is None:
        if (now := report.read_bytes().count(b'["done",')) != count:
            count, since = now, time.monotonic()
        elif is_over(since, patience_s):
            return
        time.sleep(_LOOK_S)


def _read(report: Path, tasks: int) -> Book:
    """Put the facts into a book; a task whose end Luigi never told hangs."""
    book = Book()
    words = {"committed": book.committed, "never": book.never}
    words |= {"wrong": book.wrong, "failed": book.failed, "done": []}
    for line in report.read_text().splitlines():
        word, value = json.loads(line)
        words[word].append(value)
    book.hangs = tasks - len(set(words["done"]))
    return book
