"""`two-loops`: one engine serves the loops of two threads.

A web framework in one thread and a scheduler in another: who gets a connection of the
other's loop waits for a loop that does not know him.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Final

from poolproof.drill.incident import Incident
from poolproof.drill.pace import is_over
from poolproof.drill.target import ASYNCIO
from poolproof.drill.tasks import MEASURES, Notes, TasksOutcome, lacks, request, settle

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from poolproof.drill.stage import Stage

LOOPS: Final = 2
TASKS: Final = 4
SIZE: Final = 4
REQUESTS: Final = 15
REQUESTS_FULL: Final = 250
# Nobody waits nearly as long for a slot who is served at all.
_WAIT_S: Final = 20.0
_PATIENCE_S: Final = 6.0
_LOOK_S: Final = 0.02


def play(stage: Stage) -> TasksOutcome:
    """Let four tasks in each of two loops make requests on one engine."""
    engine = stage.async_engine(
        pool_size=SIZE,
        max_overflow=0,
        pool_timeout=_WAIT_S,
    )
    notes = Notes()
    together = threading.Barrier(LOOPS)
    count = REQUESTS_FULL if stage.full else REQUESTS

    def serve(loop: int) -> None:
        together.wait()
        asyncio.run(_serve(engine, stage, notes, f"{stage.tag}/loop{loop}", count))

    threads = [
        threading.Thread(target=serve, args=(n,), daemon=True) for n in range(LOOPS)
    ]
    for thread in threads:
        thread.start()
    _await(threads, notes)
    hangs = sum(thread.is_alive() for thread in threads)
    outcome = settle(stage, notes, engine, hangs=hangs)
    if not hangs:
        engine.sync_engine.pool.dispose()
    return outcome


async def _serve(
    engine: AsyncEngine, stage: Stage, notes: Notes, name: str, count: int
) -> None:
    async def be_a_task(n: int) -> None:
        for number in range(count):
            await request(engine, stage, notes, f"{name}.{n}/{number}")

    await asyncio.gather(*(be_a_task(n) for n in range(TASKS)))


def _await(threads: list[threading.Thread], notes: Notes) -> None:
    """Wait until the threads have ended, or nothing has been heard for too long."""
    heard, since = -1, time.monotonic()
    while any(thread.is_alive() for thread in threads):
        if len(notes.took_s) != heard:
            heard, since = len(notes.took_s), time.monotonic()
        if is_over(since, _PATIENCE_S):
            return
        time.sleep(_LOOK_S)


INCIDENT: Final = Incident(
    name="two-loops",
    headline=f"one engine serves {LOOPS} loops of {TASKS} tasks each",
    play=play,
    measures=MEASURES,
    trials_max=10,
    bound_s=90.0,
    lacks=lacks,
    drivers=ASYNCIO,
)
