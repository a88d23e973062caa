"""A heartbeat that is started and stopped in asyncio."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from plugins.processes import run_in_fork
from poolproof import AsyncHeartbeat, ControlError, LeaseForked


@pytest.fixture
def beats(table, observer):
    """Count the beats that the server saw."""
    observer.rows(f"insert into {table} values (0)")
    return lambda: observer.value(f"select n from {table}")


def test_it_beats_until_the_block_ends(play, table, beats, until):
    async def story(engine):
        query = f"update {table} set n = n + $1"
        async with AsyncHeartbeat(engine, query, [1], every=0.1) as beating:
            assert beats() >= 1
            await until(lambda: beats() >= 4)
        last = beats()
        assert last >= beating.stats().beats
        await asyncio.sleep(0.3)
        assert beats() == last

    play(story)


def test_it_rests_while_the_application_gives_no_sign_of_life(
    play, table, beats, until
):
    async def story(engine):
        query = f"update {table} set n = n + 1"
        async with AsyncHeartbeat(engine, query, every=0.1, stale_after=0.3) as beating:
            await until(lambda: beating.stats().is_stale)
            rested = beats()
            beating.beat()
            await until(lambda: beats() > rested)

    play(story)


def test_a_statement_that_the_server_refuses_is_an_error_at_once(play):
    async def story(engine):
        with pytest.raises(ControlError, match="no_such_table") as caught:
            await AsyncHeartbeat(engine, "update no_such_table set n = 1").start()
        assert caught.value.sqlstate == "42P01"

    play(story)


def test_whoever_is_cancelled_while_it_starts_has_none(
    pg_url, make_engine, table, observer, eventually
):
    engine = make_engine(pg_url("psycopg2", application_name="cancelled"))

    async def story():
        beating = AsyncHeartbeat(engine, f"update {table} set n = n + 1")
        with engine.begin() as connection:
            connection.execute(text(f"lock table {table}"))
            task = asyncio.create_task(beating.start())
            await asyncio.sleep(0.2)
            assert not task.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        return beating

    beating = asyncio.run(story())
    eventually(lambda: not observer.backends("cancelled poolproof-control"))
    assert beating.stats().beats == 0


@pytest.mark.fork
def test_it_stays_with_the_parent(engine, eventually):
    beating = AsyncHeartbeat(engine, "select 1", every=0.1)
    asyncio.run(beating.start())

    def child():
        with pytest.raises(LeaseForked):
            beating.beat()
        asyncio.run(beating.stop())

    run_in_fork(child).assert_silent()
    before = beating.stats().beats
    eventually(lambda: beating.stats().beats > before)
    asyncio.run(beating.stop())
