"""An interruption at each bytecode of a task's checkout and check-in."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import random

import pytest
from sqlalchemy import event, text
from sqlalchemy.util import greenlet_spawn

from plugins.bytecodes import Interruption
from plugins.processes import run_in_fork
from plugins.tasks import settled

TRACED = ("poolproof/pool/loop_checkout.py", "poolproof/pool/loop_entry.py")
STEP = int(os.environ.get("POOLPROOF_TEST_STEP", "1"))

pytestmark = [
    pytest.mark.each,  # no interpreter has another's bytecodes
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.mark.parametrize(
    ("async_driver", "how"), [("asyncpg", "given back"), ("psycopg", "dropped")]
)
def test_an_interruption_anywhere_loses_no_slot(make_async, how):
    engine = make_async(pool_size=1, max_overflow=0, pool_timeout=0)
    pool = engine.pool
    opened = []
    event.listen(engine.sync_engine, "connect", lambda raw, _: opened.append(raw))

    def use():
        fairy = pool.connect()
        if how == "given back":
            fairy.close()

    async def end(raw):
        if hasattr(raw, "terminate"):
            raw.terminate()
        else:
            await raw.close()
        await asyncio.sleep(0)

    async def main():
        # Each seventh, from another one in each run: each session takes its time.
        for at in itertools.count(random.randrange(1, 8), 7 * STEP):  # noqa: S311 - no secret
            async with engine.connect() as connection:
                assert await connection.scalar(text("select 1")) == 1
            interruption = Interruption(at, TRACED)
            await greenlet_spawn(interruption.run, use)
            gc.collect()
            if pool._loans:
                # It came while the pool was told of what was collected. Who needs the
                # slot next has it, at once.
                async with engine.connect() as connection:
                    assert await connection.scalar(text("select 1")) == 1
            await settled(pool)
            assert pool.stats().idle <= 1, interruption.place
            assert not pool._loans, interruption.place
            # The slot is free. What the loop alone still has is ended here.
            kept = {entry.dbapi_connection for entry in pool.entries()}
            for raw in [raw for raw in opened if raw not in kept]:
                await end(raw.driver_connection)
                opened.remove(raw)
            if interruption.count < at:
                break
        return at

    # In a process of its own: what an interruption has left half-made, a frame of it, a
    # session of which nobody was told, ends with that.
    assert run_in_fork(lambda: asyncio.run(main()), seconds=250).result > 100
