"""The same for asyncio."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import create_engine, exc, text
from sqlalchemy.ext.asyncio import (
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.pool import AsyncAdaptedQueuePool

import poolproof
from plugins.harm import message
from poolproof import Fault

QUICK = poolproof.Backoff(first=0.001, most=0.01)
STRAY = message(b"C", b"SELECT 1\0")
BACKEND = text("select pg_backend_pid()")
FAIL = text("do $$ begin raise sqlstate '40001'; end $$")


@pytest.fixture(
    params=[
        ("asyncpg", AsyncAdaptedQueuePool),
        ("psycopg", AsyncAdaptedQueuePool),
        ("asyncpg", poolproof.AsyncPool),
        ("psycopg", poolproof.AsyncPool),
        ("poolproof", poolproof.AsyncPool),
    ],
    ids=lambda param: f"{param[0]}-{param[1].__name__}",
)
def play(request, pg_url):
    """Run a coroutine function with an engine, and dispose of the engine."""
    driver, pool = request.param

    def run(story, **options):
        async def whole():
            url = pg_url(driver)
            if driver == "asyncpg":
                url = url.set(query={})
            options.setdefault("poolclass", pool)
            engine = create_async_engine(url, pool_size=2, **options)
            try:
                return await story(engine)
            finally:
                await engine.dispose()

        return asyncio.run(whole())

    return run


def test_unit_is_repeated_without_blocking_the_loop(play, attempted):
    async def story(engine):
        calls = []
        ticks = []

        async def ticking():
            while True:
                ticks.append(1)
                await asyncio.sleep(0.01)

        async def unit(connection):
            calls.append(await connection.scalar(BACKEND))
            if len(calls) < 3:
                await connection.execute(FAIL)
            return len(calls)

        ticker = asyncio.create_task(ticking())
        result = await poolproof.run_transaction_async(
            engine, unit, backoff=lambda _: 0.1
        )
        ticker.cancel()
        return result, len(ticks)

    result, ticks = play(story)
    assert result == 3
    assert ticks >= 3
    assert [one.verdict is None for one in attempted] == [False, False, True]


@pytest.mark.parametrize("scoped", [False, True])
def test_session_is_repeated(play, scoped, table, observer):
    async def story(engine):
        maker = async_sessionmaker(engine)
        bind = async_scoped_session(maker, asyncio.current_task) if scoped else maker
        calls = []

        async def unit(session):
            calls.append(1)
            insert = text(f"insert into {table} values (:n)")
            await session.execute(insert, {"n": len(calls)})
            if len(calls) == 1:
                await session.execute(FAIL)

        await poolproof.run_transaction_async(
            bind, unit, backoff=QUICK, isolation_level="SERIALIZABLE"
        )
        if scoped:
            await bind.remove()

    play(story)
    assert observer.rows(f"select n from {table}") == [(2,)]


def test_terminated_session_is_replaced(play, table, observer):
    async def story(engine):
        pids = []

        async def unit(connection):
            pids.append(await connection.scalar(BACKEND))
            if len(pids) == 1:
                observer.terminate(pids[0])
            await connection.execute(text(f"insert into {table} values ({len(pids)})"))

        await poolproof.run_transaction_async(
            engine, unit, backoff=QUICK, verify_commit=True
        )
        return pids

    assert len(set(play(story))) == 2
    assert observer.rows(f"select n from {table}") == [(2,)]


@pytest.mark.parametrize("as_session", [False, True], ids=["connection", "session"])
def test_session_that_ends_between_statements_is_replaced(
    play, observer, attempted, as_session
):
    async def story(engine):
        poolproof.guard(engine)
        pids = []

        async def unit(given):
            pids.append(await given.scalar(BACKEND))
            if len(pids) == 1:
                observer.terminate(pids[0])
                # The loop reads the farewell, and does not see the end yet.
                for _ in range(2):
                    await asyncio.sleep(0)
            await given.execute(text("select 42"))

        bind = async_sessionmaker(engine) if as_session else engine
        await poolproof.run_transaction_async(bind, unit, backoff=QUICK)
        return pids

    assert len(set(play(story))) == 2
    first, _ = attempted
    assert first.verdict.fault in {Fault.TERMINATED, Fault.CONNECTION_LOST}
    assert first.verdict.outcome == "not_done"


@pytest.mark.parametrize(
    "play", [("asyncpg", AsyncAdaptedQueuePool)], indirect=True, ids=["asyncpg"]
)
@pytest.mark.parametrize("guarded", [False, True], ids=["bare", "guarded"])
def test_stray_answer_between_statements_is_never_repeated(play, attempted, guarded):
    # The driver raises what it raises for a session that has ended.
    async def story(engine):
        if guarded:
            poolproof.guard(engine)

        async def unit(connection):
            raw = await connection.get_raw_connection()
            raw.driver_connection._transport.get_protocol().data_received(STRAY)
            await connection.execute(text("select 42"))

        with pytest.raises(exc.DBAPIError, match="cannot switch to state"):
            await poolproof.run_transaction_async(engine, unit, backoff=QUICK)

    play(story)
    (only,) = attempted
    assert only.verdict.fault is Fault.CORRUPTION
    assert only.verdict.retry == "never"


def test_commit_of_a_terminated_session_is_asked_for(play, table, observer):
    async def story(engine):
        calls = []

        async def unit(connection):
            calls.append(await connection.scalar(BACKEND))
            await connection.execute(text(f"insert into {table} values ({len(calls)})"))

        def kill(_):
            if len(calls) == 1:
                observer.terminate(calls[0])

        from sqlalchemy import event

        event.listen(engine.sync_engine, "commit", kill)
        await poolproof.run_transaction_async(
            engine, unit, backoff=QUICK, verify_commit=True
        )

    play(story)
    assert observer.rows(f"select n from {table}") == [(2,)]


def test_cancelled_task_ends_it_and_leaves_nothing_out(play):
    async def story(engine):
        begun = asyncio.Event()
        calls = []

        async def unit(connection):
            calls.append(1)
            begun.set()
            await connection.execute(text("select pg_sleep(30)"))

        task = asyncio.create_task(poolproof.run_transaction_async(engine, unit))
        await begun.wait()
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return calls, engine.pool.checkedout()

    assert play(story) == ([1], 0)


def test_units_of_different_tasks_do_not_meet(play):
    async def story(engine):
        async def unit(connection):
            await asyncio.sleep(0.05)
            return await connection.scalar(BACKEND)

        return await asyncio.gather(
            *(poolproof.run_transaction_async(engine, unit) for _ in range(4))
        )

    assert len(play(story)) == 4


def test_sync_function_and_sync_engine_are_refused(play):
    async def story(engine):
        with pytest.raises(TypeError, match="no coroutine function"):
            await poolproof.run_transaction_async(engine, lambda _: 1)
        with pytest.raises(TypeError, match="for those there is run_transaction"):
            await poolproof.run_transaction_async(
                create_engine("sqlite://"), lambda _: 1
            )
        with pytest.raises(TypeError, match="run_transaction_async"):
            poolproof.run_transaction(engine, lambda _: 1)
        async with engine.connect() as connection:
            with pytest.raises(TypeError, match="a checkout of its own"):
                await poolproof.run_transaction_async(connection, lambda _: 1)
        with pytest.raises(exc.InvalidRequestError, match="inside"):
            await poolproof.run_transaction_async(
                engine, lambda _: poolproof.run_transaction_async(engine, story)
            )

    play(story)


def test_generators_are_refused_as_what_they_are(play):
    async def of_a_loop(_connection):
        yield 1

    def plain(_connection):
        yield 1

    async def story(engine):
        for unit in (of_a_loop, plain):
            with pytest.raises(TypeError, match="returned a generator"):
                await poolproof.run_transaction_async(engine, unit)

    play(story)


def test_error_that_the_unit_swallows_is_no_success(play, table, observer):
    async def story(engine):
        async def unit(connection):
            await connection.execute(text(f"insert into {table} values (1)"))
            with pytest.raises(exc.DBAPIError):
                await connection.execute(FAIL)

        with pytest.raises((exc.InvalidRequestError, exc.DBAPIError)):
            await poolproof.run_transaction_async(engine, unit)

    play(story)
    assert observer.value(f"select count(*) from {table}") == 0


def test_engine_without_transactions_is_refused(play, table, observer):
    async def story(engine):
        async def unit(connection):
            await connection.execute(text(f"insert into {table} values (1)"))

        for bind in (engine, async_sessionmaker(engine)):
            with pytest.raises(exc.InvalidRequestError, match="AUTOCOMMIT"):
                await poolproof.run_transaction_async(bind, unit)

    play(story, isolation_level="AUTOCOMMIT")
    assert observer.value(f"select count(*) from {table}") == 0
