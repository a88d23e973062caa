"""`cancel-storm`: tasks whose time is over, by the hundred, and then a silent server.

Every second request has a time limit that it may not meet, as `asyncio.wait_for` and
cancel scopes set it. Then the peer acknowledges and answers nothing, as in `hang`: who
is cancelled now is to go on at once, whatever the server says, and when new connections
work again everybody is served.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from poolproof.drill.calls import Control
from poolproof.drill.incident import Incident
from poolproof.drill.proxy import Proxy
from poolproof.drill.target import ASYNCIO
from poolproof.drill.tasks import MEASURES, Notes, TasksOutcome, lacks, request, settle

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from poolproof.drill.stage import Stage

SIZE: Final = 4
TASKS: Final = 16
REQUESTS: Final = 10
REQUESTS_FULL: Final = 250
AFTER: Final = 12
# A time limit is anything up to this: some requests are cut off at each of their steps.
_LIMIT_MOST_S: Final = 0.06
_SILENT_S: Final = 0.3
# How much later than its cancellation a task may go on, beyond the machine's lateness.
_SLACK_S: Final = 1.0
# Nobody waits nearly as long for a slot who is served at all.
_WAIT_S: Final = 20.0


def play(stage: Stage) -> TasksOutcome:
    """Cancel by chance; fall silent under tasks with a limit; serve."""
    notes = Notes()
    with Proxy(stage.target.address()) as proxy, Control() as control:
        engine = stage.async_engine(
            stage.target.through(proxy.port),
            pool_size=SIZE,
            max_overflow=0,
            pool_timeout=_WAIT_S,
        )
        held = asyncio.run(_play(engine, stage, notes, proxy, control))
    return settle(stage, notes, engine, held=held)


async def _play(
    engine: AsyncEngine, stage: Stage, notes: Notes, proxy: Proxy, control: Control
) -> int:
    await _storm(engine, stage, notes)
    held = await _fall_silent(engine, stage, notes, proxy, control)
    serve = (
        request(engine, stage, notes, f"{stage.tag}/after{n}/{n}") for n in range(AFTER)
    )
    await asyncio.gather(*serve)
    await engine.dispose()
    return held


async def _storm(engine: AsyncEngine, stage: Stage, notes: Notes) -> None:
    """Make requests, of which every second may be cut off."""
    count = REQUESTS_FULL if stage.full else REQUESTS

    async def be_a_client(n: int) -> None:
        for number in range(count):
            serve = request(engine, stage, notes, f"{stage.tag}/storm{n}/{number}")
            if number % 2:
                await serve
            else:
                await _within(serve, stage.rng.uniform(0.0, _LIMIT_MOST_S))

    await asyncio.gather(*(be_a_client(n) for n in range(TASKS)))


async def _within(work: object, seconds: float) -> None:
    """Do some work, and cancel it when its time is over."""
    try:
        await asyncio.wait_for(work, seconds)  # type: ignore[arg-type]
    except asyncio.TimeoutError:
        return


async def _fall_silent(
    engine: AsyncEngine, stage: Stage, notes: Notes, proxy: Proxy, control: Control
) -> int:
    """Cancel tasks that a silent server keeps waiting; return how many went on late."""
    # Connections that rest and need no look: what follows meets the silence in a query.
    opened = [await engine.connect() for _ in range(SIZE)]
    for connection in opened:
        await connection.close()
    proxy.stall()
    late: list[float] = []

    async def be_cut_off(n: int) -> None:
        due = time.monotonic() + _SILENT_S
        serve = request(engine, stage, notes, f"{stage.tag}/silent{n}/{n}")
        await _within(serve, _SILENT_S)
        now = time.monotonic()
        late.append(now - due - control.overslept_s(due, now))

    await asyncio.gather(*(be_cut_off(n) for n in range(SIZE)))
    proxy.resume(old=False)
    return sum(one > _SLACK_S for one in late)


INCIDENT: Final = Incident(
    name="cancel-storm",
    headline=f"{TASKS} tasks are cut off by time limits, then by a silent server",
    play=play,
    measures=MEASURES,
    trials_max=5,
    bound_s=90.0,
    lacks=lacks,
    # asyncpg's are held up for two seconds, psycopg's for ten.
    drivers=ASYNCIO[::-1],
    uses_proxy=True,
)
