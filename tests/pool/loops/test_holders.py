"""Who holds a connection, by the task; and how late a loop lets the next one go on."""

from __future__ import annotations

import asyncio
import time

import pytest
from sqlalchemy import exc, text

import poolproof
from plugins.tasks import until
from plugins.threads import eventually


def warnings_of(caplog, words):
    return [one for one in caplog.messages if words in one]


def test_holders_and_the_error_of_who_waits_name_the_task(make_async):
    engine = make_async(pool_size=2, max_overflow=0, pool_timeout=0.2)

    has = []

    async def hold(waits):
        async with engine.connect():
            has.append(engine)
            await waits.wait()

    async def main():
        waits = asyncio.Event()
        tasks = [
            asyncio.create_task(hold(waits), name=name) for name in ("fetch", "store")
        ]
        await until(lambda: len(has) == 2)
        names = {holder.thread for holder in engine.pool.holders()}
        assert names == {"task fetch of MainThread", "task store of MainThread"}
        with pytest.raises(poolproof.PoolTimeout, match="task fetch of MainThread"):
            await engine.connect()
        seen = poolproof.snapshot(engine)
        assert {one.thread for one in seen.holders} == names
        waits.set()
        await asyncio.gather(*tasks)
        assert engine.pool.holders() == ()

    asyncio.run(main())


def test_what_a_task_has_left_to_others_is_an_ended_tasks(make_async):
    engine = make_async()

    async def main():
        connection = await asyncio.create_task(connect())
        (holder,) = engine.pool.holders()
        assert "ended task" in holder.thread
        assert holder.thread.endswith(" of MainThread")
        await connection.close()

    async def connect():
        return await engine.connect()

    asyncio.run(main())


def test_a_warning_of_a_long_hold_names_the_task_and_its_coroutines(make_async, caplog):
    engine = make_async(hold_warning=0.1)

    async def keeps_it_for_long():
        async with engine.connect():
            await until(lambda: warnings_of(caplog, "is held by"))

    async def main():
        await asyncio.create_task(keeps_it_for_long(), name="slow")

    asyncio.run(main())
    (said,) = warnings_of(caplog, "is held by")
    assert "task slow of MainThread" in said
    assert "in keeps_it_for_long" in said


def test_one_who_awaits_others_is_warned_of_once_and_not_for_a_statement(
    make_async, caplog
):
    engine = make_async(idle_hold_warning=0.2)

    async def awaits_others():
        async with engine.connect() as connection:
            await connection.execute(text("select pg_sleep(0.7)"))
            assert not warnings_of(caplog, "no statement under way")
            await until(lambda: warnings_of(caplog, "no statement under way"))
            await asyncio.sleep(0.5)

    asyncio.run(awaits_others())
    (said,) = warnings_of(caplog, "no statement under way")
    assert "in awaits_others" in said


def test_one_who_awaits_others_is_shut_and_told_so(make_async, observer):
    engine = make_async(idle_hold_timeout=0.3)

    async def main():
        async with engine.connect() as connection:
            pid = await connection.scalar(text("select pg_backend_pid()"))
            await until(
                lambda: (
                    not observer.rows(
                        f"select 1 from pg_stat_activity where pid = {pid}"
                    )
                )
            )
            with pytest.raises(exc.DBAPIError) as caught:
                await connection.execute(text("select 1"))
        cause = caught.value.orig.__cause__
        assert isinstance(cause, poolproof.DeadlineExceeded)
        assert (cause.step, cause.limit) == ("idle_hold", 0.3)
        assert engine.pool.stats().discarded == {"idle_hold_timeout": 1}
        async with engine.connect() as connection:
            assert await connection.scalar(text("select 1")) == 1

    asyncio.run(main())


def test_what_a_loop_is_late_is_no_waiting_for_a_slot(make_async):
    engine = make_async(pool_size=1, max_overflow=0)
    assert engine.pool.stats().loop_lag_s is None
    assert poolproof.snapshot(engine).lag is None

    async def main():
        holder = await engine.connect()
        began = time.perf_counter()
        waiting = asyncio.create_task(engine.connect().start())
        await until(lambda: engine.pool.stats().waiting)
        await holder.close()  # the slot is the other's from here on
        time.sleep(0.3)  # noqa: ASYNC251 - the loop is to stand still
        connection = await waiting
        whole = time.perf_counter() - began
        await connection.close()
        return whole

    whole = asyncio.run(main())
    seen = poolproof.snapshot(engine)
    assert seen.lag.count == 1
    assert 0.3 <= seen.lag.max_s <= whole
    assert seen.wait.max_s <= whole - seen.lag.max_s
    assert engine.pool.stats().loop_lag_s == seen.lag.max_s
    eventually(lambda: engine.pool.stats().in_use == 0)
