"""Requests as a service of asyncio makes them, each in a task that may be cancelled."""

from __future__ import annotations

import asyncio
import importlib.util
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from poolproof.drill.incident import Measure, Outcome
from poolproof.drill.latency import by_step
from poolproof.drill.player import first_line
from poolproof.drill.traffic import pick, texts

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from poolproof.drill.stage import Stage

_ASK: Final = text("SELECT CAST(:token AS text)")
_ROLLED_BACK_EVERY: Final = 5


@dataclass(slots=True)
class Notes:
    """What tasks were told; each list is written by any of them, a step at a time."""

    committed: list[str] = field(default_factory=list)
    never: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    cut_off: int = 0
    requests: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TasksOutcome(Outcome):
    """What became of the requests of tasks."""

    requests: int
    failed: int
    wrong: int
    lost: int
    ghosts: int
    hangs: int
    held: int
    slots: int
    cut_off: int


MEASURES: Final = (
    Measure("requests", "requests", more_is_right=True),
    Measure("failed", "that failed", is_fault=True),
    Measure("wrong", "wrong results", is_fault=True),
    Measure("lost", "lost commits", is_fault=True),
    Measure("ghosts", "uncommitted rows kept", is_fault=True),
    Measure("hangs", "hangs", is_fault=True),
    Measure("held", "cancelled tasks held up", is_fault=True),
    Measure("slots", "slots lost", is_fault=True),
    Measure("cut_off", "cancelled, and told so"),
)


async def request(engine: AsyncEngine, stage: Stage, notes: Notes, token: str) -> None:
    """Serve one request: ask, check, write, commit. Every fifth rolls back.

    Args:
        engine: Whose pool is drilled.
        stage: Gives the statement.
        notes: Where to tell.
        token: Nobody else's; its last digits say whether it rolls back.
    """
    began = time.monotonic()
    notes.requests += 1
    is_done = False
    try:
        async with engine.connect() as connection:
            rows = [
                tuple(row) for row in await connection.execute(_ASK, {"token": token})
            ]
            if rows != [(token,)]:
                notes.wrong.append(f"asked for {token}, got {rows}")
            await connection.execute(stage.insert(), {"id": token})
            if int(token.rpartition("/")[2]) % _ROLLED_BACK_EVERY:
                is_done = True  # or unknown, from here on
                await connection.commit()
                notes.committed.append(token)
            else:
                await connection.rollback()
    except asyncio.CancelledError:
        notes.cut_off += 1
        raise
    except Exception as error:  # noqa: BLE001 (every surfaced error is counted)
        notes.failed.append(first_line(error))
    finally:
        notes.took_s.append(time.monotonic() - began)
        if not is_done:
            notes.never.append(token)


def settle(
    stage: Stage, notes: Notes, engine: AsyncEngine, *, hangs: int = 0, held: int = 0
) -> TasksOutcome:
    """Hold what the tasks were told against what the database holds.

    Args:
        stage: The trial's stage, all at an end but what hangs.
        notes: What they were told.
        engine: Whose pool has been drilled.
        hangs: Threads or tasks that did not end.
        held: Tasks that went on long after they were cancelled.
    """
    present = stage.present([*notes.committed, *notes.never])
    pool: Any = engine.pool
    return TasksOutcome(
        requests=notes.requests,
        failed=len(notes.failed),
        wrong=len(notes.wrong),
        lost=sum(token not in present for token in notes.committed),
        ghosts=sum(token in present for token in notes.never),
        hangs=hangs,
        held=held,
        slots=0 if hangs else pool.checkedout(),
        cut_off=notes.cut_off,
        samples=pick(notes.wrong, notes.failed),
        heard=texts(notes.failed),
        took=by_step(notes.took_s),
        stuck=bool(hangs),
    )


def lacks() -> str | None:
    """Say what is missing here for an incident of asyncio's."""
    for name in ("asyncpg", "greenlet"):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed (poolproof's extra 'asyncpg' brings it)"
    return None
