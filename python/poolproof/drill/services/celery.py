"""Celery as it is: a worker, its processes or threads, and tasks of every fate."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import kombu.pools  # type: ignore[import-untyped,unused-ignore]
from celery import Celery  # type: ignore[import-untyped,unused-ignore]
from celery.exceptions import (  # type: ignore[import-untyped,unused-ignore]
    SoftTimeLimitExceeded,
)
from celery.states import (  # type: ignore[import-untyped,unused-ignore]
    READY_STATES,
)
from sqlalchemy import text

from poolproof.drill.pace import is_over
from poolproof.drill.service import Book, Crowd, Service, ServiceOutcome, settle
from poolproof.drill.services.broker import Broker
from poolproof.drill.stage import checked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from poolproof.drill.stage import Stage

_MODULE: Final = "poolproof.drill.services.tasks"
_MOST: Final = 3  # what a pool of the application may open
_POLL_S: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """How often something happens to a task, and what it means."""

    name: str
    every: int
    """One task in so many."""

    commits: bool
    """Whether its row is to be there."""

    raises: str = ""
    """The class of the error that is to come of it."""

    processes_only: bool = False
    """Whether threads cannot have it: a signal would be for the whole worker."""


FATES: Final = (
    Fate(name="refuse", every=10, commits=False, raises="TaskRefusedError"),
    Fate(
        name="linger",
        every=50,
        commits=False,
        raises=SoftTimeLimitExceeded.__name__,
        processes_only=True,
    ),
    Fate(name="die_early", every=60, commits=True, processes_only=True),
    Fate(name="die_late", every=70, commits=True, processes_only=True),
)
ORDER: Final = Fate(name="order", every=1, commits=True)


def serve(
    stage: Stage,
    *,
    tasks: int = 500,
    workers: int = 4,
    pool: Literal["prefork", "threads"] = "prefork",
    broker: Literal["redis", "files"] | None = None,
    patience_s: float = 15.0,
    stop_s: float = 20.0,
) -> ServiceOutcome:
    """Let a worker do tasks, and count what came of them.

    Args:
        stage: The trial's stage.
        tasks: How many, 1 or more.
        workers: How many processes or threads.
        pool: Celery's kind of worker. Threads are not killed and have no soft time
            limits.
        broker: What carries the tasks; None: Redis where it is installed.
        patience_s: When nothing has come back for so long, nothing will.
        stop_s: How long the worker may take to end.

    Returns:
        The outcome.
    """
    book = Book()
    with Broker(broker) as carrier, Crowd(stage) as crowd:
        settings = json.dumps(carrier.settings)
        variables = {"POOLPROOF_DRILL_CELERY": settings, "C_FORCE_ROOT": "1"}
        with Service(_command(pool, workers), stage, environment=variables) as service:
            service.await_start(lambda: " ready." in service.log())
            with client(carrier.settings) as customer:
                sent = {
                    row: (fate, _send(customer, fate, row))
                    for fate, row in _work(stage, tasks, pool)
                }
                _collect(customer.backend, sent, book, patience_s)
            if not service.stop(stop_s):
                book.hangs += 1
    _find_more(stage, book)
    # With processes there is the parent as well, whose own connections rest.
    processes = workers + 1 if pool == "prefork" else 1
    outcome = settle(stage, book, crowd, allowed=processes * _MOST)
    # Some tasks have written two rows.
    return dataclasses.replace(outcome, asked=tasks)


@contextlib.contextmanager
def client(settings: Mapping[str, Any]) -> Iterator[Any]:
    """Have an application that only sends, and leave none of its connections open.

    Celery itself leaves them to the collector.

    Args:
        settings: Its configuration.

    Yields:
        The application.
    """
    with Celery("client", set_as_current=False) as app:
        app.conf.update(settings)
        try:
            yield app
        finally:
            # Of all applications with this broker.
            kombu.pools.reset()  # type: ignore[no-untyped-call,unused-ignore]
            redis = getattr(app.backend, "client", None)
            if redis is not None:
                redis.connection_pool.disconnect()


def _command(pool: str, workers: int) -> list[str]:
    return [
        *(sys.executable, "-m", "celery", "--app", _MODULE, "worker"),
        *("--pool", pool, "--concurrency", str(workers), "--loglevel", "INFO"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        *("--hostname", f"drill{os.getpid()}@poolproof"),
    ]


def _work(stage: Stage, tasks: int, pool: str) -> Iterator[tuple[Fate, str]]:
    """Yield what is to be done; each fate has at least one task that has it."""
    fates = [one for one in FATES if pool == "prefork" or not one.processes_only]
    for n in range(tasks):
        had = [
            fate
            for place, fate in enumerate(fates)
            if n % min(fate.every, tasks) == place + 1
        ]
        fate = had[0] if had else ORDER
        yield fate, f"{stage.tag}/{fate.name}/{n}"


def _send(customer: Any, fate: Fate, row: str) -> str:
    """Send one task, and return its id; its result is looked up, not subscribed to."""
    task_id = str(uuid.uuid4())
    with customer.producer_or_acquire() as producer:
        message = customer.amqp.create_task_message(
            task_id, f"drill.{fate.name}", (row,), {}
        )
        customer.amqp.send_task_message(producer, f"drill.{fate.name}", message)
    return task_id


def _collect(
    backend: Any, sent: dict[str, tuple[Fate, str]], book: Book, patience_s: float
) -> None:
    """Write down what comes back, until all has or nothing does any more."""
    heard = time.monotonic()
    while sent and not is_over(heard, patience_s):
        for row, (fate, task_id) in list(sent.items()):
            told = backend.get_task_meta(task_id)
            if told["status"] in READY_STATES:
                _note(row, fate, told["result"], book)
                del sent[row]
                heard = time.monotonic()
        time.sleep(_POLL_S)
    book.hangs += len(sent)


def _note(row: str, fate: Fate, value: Any, book: Book) -> None:
    """Write down what was told of one task."""
    if isinstance(value, BaseException):
        told, answer = type(value).__name__, str(value.args[0]) if value.args else ""
        if told != fate.raises:
            book.failed.append(f"{row}: {value!r}")
            return
        (book.committed if fate.commits else book.never).append(row)
        if told == "TaskRefusedError" and answer != row:
            book.wrong.append(f"asked for {row}, got {answer}")
        return
    (book.committed if fate.commits else book.never).append(row)
    if fate.name == "die_early":
        book.committed.append(f"{row}/first")
    if fate.raises:
        book.failed.append(f"{row}: it was to raise {fate.raises}, and returned")
    if value != row:
        book.wrong.append(f"asked for {row}, got {value}")


def _find_more(stage: Stage, book: Book) -> None:
    """Add the rows that nobody was told of to those that are not to be there."""
    query = text(f"SELECT id FROM {checked(stage.table)} WHERE starts_with(id, :tag)")  # noqa: S608 (the name is checked)
    with stage.witness().connect() as connection:
        found = connection.execute(query, {"tag": f"{stage.tag}/"}).scalars().all()
    told = {*book.committed, *book.never}
    failed = {line.partition(":")[0] for line in book.failed}
    book.never += [
        row
        for row in found
        if row not in told and row.removesuffix("/first") not in failed
    ]
