"""Pipelines of one's own in a loop of asyncio."""

from __future__ import annotations

import asyncio

import pytest

import poolproof.driver as dbapi
from plugins.tasks import cancelled_at, until
from poolproof.driver import aio

SECONDS = 60


def test_each_statement_of_a_pipeline_has_its_own_answer(run):
    async def main(connection):
        async with connection.pipeline():
            cursors = [
                await connection.execute("select %s::int, 'x'", [n])
                for n in range(2500)  # more than are sent at once
            ]
            assert await cursors[7].fetchone() == (7, "x")
            assert cursors[8].rowcount == 1
            assert await cursors[8].fetchmany(5) == [(8, "x")]
            assert [row async for row in cursors[9]] == [(9, "x")]
        for number, cursor in enumerate(cursors[10:], 10):
            assert cursor.rowcount == 1
            assert await cursor.fetchall() == [(number, "x")]
        await connection.rollback()
        assert await (await connection.execute("select 3")).fetchone() == (3,)

    run(main)


def test_what_waits_in_a_pipeline_is_not_told_without_waiting(run):
    """Without the refusal the request was sent, and the connection lost."""

    async def main(connection):
        async with connection.pipeline() as pipeline:
            cursor = await connection.execute("select 1 as n")
            for look in (
                lambda: cursor.rowcount,
                lambda: cursor.description,
                lambda: cursor.statusmessage,
                lambda: setattr(connection, "autocommit", True),
            ):
                with pytest.raises(dbapi.InterfaceError, match=r"pipeline\.sync"):
                    look()
            await pipeline.sync()
            assert cursor.description[0].name == "n"
            assert (cursor.rowcount, cursor.statusmessage) == (1, "SELECT 1")
            assert await cursor.fetchone() == (1,)
        async with connection.pipeline() as outer, connection.pipeline():
            cursor = await connection.execute("select 2")
            await connection.commit()
            await outer.sync()
        assert await cursor.fetchone() == (2,)
        assert connection.info.transaction_status == 0

    run(main)


def test_an_error_in_a_pipeline_has_the_rest_not_run(run):
    async def main(connection):
        cursors = []

        async def divide():
            async with connection.pipeline():
                for divisor in (1, 0, 2):
                    query = "select 1 / %s::int"
                    cursors.append(await connection.execute(query, [divisor]))

        with pytest.raises(dbapi.DataError):
            await divide()
        assert await cursors[0].fetchone() == (1,)
        with pytest.raises(dbapi.DataError):
            await cursors[1].fetchone()
        with pytest.raises(dbapi.PipelineAborted):
            await cursors[2].fetchone()
        await connection.rollback()
        assert await (await connection.execute("select 3")).fetchone() == (3,)

    run(main)


def test_a_task_cancelled_in_a_pipelines_block_sends_nothing(run):
    async def main(connection):
        await connection.execute("create temp table piped (n int)")

        async def fill():
            async with connection.pipeline():
                await connection.execute("insert into piped values (1)")
                await asyncio.sleep(SECONDS)

        task = asyncio.ensure_future(fill())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not connection.closed  # no request was under way
        cursor = await connection.execute("select count(*) from piped")
        assert await cursor.fetchone() == (0,)

    run(main, autocommit=True)


def test_a_task_cancelled_while_its_pipeline_is_answered_costs_the_connection(
    run, looking
):
    async def main(connection):
        pid = connection.info.backend_pid
        cursors = []

        async def ask():
            async with connection.pipeline():
                cursors.append(await connection.execute("select 1"))
                cursors.append(await connection.execute("select pg_sleep(60)"))

        task = asyncio.ensure_future(ask())
        query = (
            "select count(*) from pg_stat_activity where pid = %s and wait_event = %s"
        )
        await until(lambda: looking.value(query, pid, "PgSleep"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert connection.closed
        for cursor in cursors:
            with pytest.raises(dbapi.OperationalError):
                await cursor.fetchone()
        await until(lambda: not looking.value(query, pid, "PgSleep"))

    run(main)


@pytest.mark.parametrize("late", [False, True])
def test_a_cancellation_at_any_step_of_a_pipeline_never_mixes_answers(dsn, late):
    async def main():
        step, is_there = 0, True
        connection = await aio.connect(dsn)
        while is_there:
            step += 1
            if connection.closed:
                connection = await aio.connect(dsn)

            async def work(connection=connection):
                async with connection.pipeline() as pipeline:
                    one = await connection.execute("select 1")
                    await pipeline.sync()
                    two = await connection.execute("select 2")
                    assert await two.fetchone() == (2,)
                    await connection.execute("select 3")
                assert await one.fetchone() == (1,)

            is_there = await cancelled_at(work(), step, late=late)
            if not connection.closed:
                cursor = await connection.execute("select %s", [step])
                assert await cursor.fetchall() == [(step,)]
                await connection.rollback()
        await connection.close()
        assert step > 1

    asyncio.run(main())
