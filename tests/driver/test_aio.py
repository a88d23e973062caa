"""The driver's twin for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import threading
import time

import pytest

import poolproof.driver as dbapi
from plugins.tasks import cancelled_at, until
from poolproof.driver import aio

SECONDS = 60


def test_statements_rows_and_transactions(run, looking):
    looking.rows("drop table if exists aio_t")
    looking.rows("create table aio_t (n int)")

    async def main(connection):
        cursor = connection.cursor()
        await cursor.executemany("insert into aio_t values (%s)", [(1,), (2,), (3,)])
        assert cursor.rowcount == 3
        await connection.commit()
        await cursor.execute("insert into aio_t values (%s)", [4])
        await connection.rollback()
        cursor = await connection.execute("select n from aio_t order by n")
        assert cursor.description[0].name == "n"
        assert await cursor.fetchone() == (1,)
        assert await cursor.fetchmany(1) == [(2,)]
        assert await cursor.fetchall() == [(3,)]
        await cursor.scroll(0, "absolute")
        assert [row async for row in cursor] == [(1,), (2,), (3,)]
        assert await cursor.callproc("abs", [-7]) == [-7]
        assert await cursor.fetchone() == (7,)
        async with connection.cursor("named") as named:
            named.itersize = 10
            await named.execute("select generate_series(1, 100)")
            assert len([row async for row in named]) == 100
        streamed = connection.cursor().stream("select generate_series(1, 100)", size=7)
        assert [n async for (n,) in streamed] == list(range(1, 101))
        await connection.ping()
        assert connection.info.transaction_status == 2
        info = await connection.type_info("hstore")
        assert info is None or info.name == "hstore"

    run(main)
    assert looking.value("select count(*) from aio_t") == 3
    looking.rows("drop table aio_t")


def test_its_block_commits_or_rolls_back_and_closes(dsn, looking):
    looking.rows("drop table if exists aio_b")
    looking.rows("create table aio_b (n int)")

    async def main():
        async with await aio.connect(dsn) as connection:
            await connection.execute("insert into aio_b values (1)")
        assert connection.closed
        assert "AsyncConnection closed" in repr(connection)
        with contextlib.suppress(ZeroDivisionError):
            async with await aio.connect(dsn) as connection:
                await connection.execute("insert into aio_b values (2)")
                raise ZeroDivisionError
            pytest.fail("not reached")
        assert connection.closed
        with pytest.raises(dbapi.InterfaceError, match="closed"):
            await connection.execute("select 1")

    asyncio.run(main())
    assert looking.rows("select n from aio_b") == [(1,)]
    looking.rows("drop table aio_b")


def test_tasks_wait_beside_each_other_in_one_thread(dsn):
    async def main():
        connections = [await aio.connect(dsn) for _ in range(8)]
        threads = threading.active_count()

        async def sleep(connection):
            cursor = await connection.execute("select pg_sleep(1), pg_backend_pid()")
            assert threading.active_count() == threads
            return (await cursor.fetchone())[1]

        begun = time.monotonic()
        found = await asyncio.gather(*map(sleep, connections))
        taken = time.monotonic() - begun
        assert found == [one.info.backend_pid for one in connections]
        assert taken < 6  # one after the other they would take eight seconds
        for connection in connections:
            await connection.close()

    asyncio.run(main())


def test_a_great_statement_and_its_answer_do_not_stop_the_loop(run):
    text = "x" * 30_000_000

    async def main(connection):
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        cursor = await connection.execute("select %s::text", [text])
        assert (await cursor.fetchone())[0] == text
        ticking.cancel()
        assert ticks > 10

    run(main)


def test_two_tasks_on_one_connection_are_told_apart(run):
    async def main(connection):
        first = asyncio.create_task(connection.execute("select pg_sleep(0.5), 1"))
        await asyncio.sleep(0.1)
        with pytest.raises(dbapi.InterfaceError, match="another request"):
            await connection.execute("select 2")
        assert (await (await first).fetchone())[1] == 1

    run(main)


def test_cancel_asks_the_server_without_stopping_the_loop(run):
    async def main(connection):
        waits = asyncio.create_task(connection.execute("select pg_sleep(60)"))
        await asyncio.sleep(0.2)
        await connection.cancel()
        with pytest.raises(dbapi.OperationalError) as caught:
            await waits
        assert caught.value.sqlstate == "57014"
        await connection.rollback()
        assert await (await connection.execute("select 1")).fetchone() == (1,)

    run(main)


def test_a_task_that_is_cancelled_goes_on_at_once_and_its_statement_ends(run, looking):
    active = "select count(*) from pg_stat_activity where query = %s"

    async def main(connection):
        task = asyncio.create_task(connection.execute("select pg_sleep(77)"))
        await until(lambda: looking.value(active, "select pg_sleep(77)"))
        begun = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - begun < 30
        assert connection.closed
        await until(lambda: not looking.value(active, "select pg_sleep(77)"))

    run(main)


@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
def test_a_cancellation_at_any_step_never_mixes_answers(dsn, late):
    async def work(number):
        async with await aio.connect(dsn) as connection:
            for n in (number, number + 1):
                cursor = await connection.execute("select %s, pg_sleep(0.01)", [n])
                assert (await cursor.fetchone())[0] == n
                await connection.commit()

    async def main():
        for step in itertools.count(1):
            if not await cancelled_at(work(step), step, late=late):
                return step
        return None

    assert asyncio.run(main()) > 4


def test_a_name_that_is_not_found_and_a_deaf_peer_hold_no_loop_up(dsn):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(1)
        port = deaf.getsockname()[1]

        async def main():
            ticks = 0

            async def tick():
                nonlocal ticks
                while True:
                    ticks += 1
                    await asyncio.sleep(0.01)

            ticking = asyncio.create_task(tick())
            with pytest.raises(dbapi.OperationalError, match="translate host name"):
                await aio.connect("postgresql://nowhere.invalid/x", timeout=20)
            with pytest.raises(dbapi.OperationalError, match="timeout expired"):
                await aio.connect(host="127.0.0.1", port=port, timeout=1)
            ticking.cancel()
            return ticks

        assert asyncio.run(main()) > 20


def test_a_copy_in_both_directions(run):
    async def main(connection):
        await connection.execute("create temp table t (n int, name text)")
        cursor = connection.cursor()
        async with cursor.copy("copy t from stdin") as copy:
            await copy.write(b"1\tone\n")
            await copy.write_row((2, "two"))
            await copy.write_rows((n, str(n)) for n in range(3, 100_000))
        assert cursor.rowcount == 99_999
        async with cursor.copy("copy t to stdout") as copy:
            assert await copy.read() == b"1\tone\n"
            assert len([piece async for piece in copy]) == 99_998
        async with cursor.copy("copy t to stdout (format binary)") as copy:
            copy.set_types(["int4", "text"])
            assert await copy.read_row() == (1, "one")
            assert len([row async for row in copy.rows()]) == 99_998
        with pytest.raises(ZeroDivisionError):
            async with cursor.copy("copy t from stdin") as copy:
                raise ZeroDivisionError
        await connection.rollback()
        assert await (await connection.execute("select 1")).fetchone() == (1,)

    run(main)


def test_a_copy_lets_the_other_tasks_have_their_turns(run):
    async def main(connection):
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        async def come():
            for n in range(1000):
                yield (n,)

        await connection.execute("create temp table t (n int)")
        ticking = asyncio.create_task(tick())
        async with connection.cursor().copy("copy t from stdin") as copy:
            await copy.write_rows(come())
        async with connection.cursor().copy("copy t from stdin") as copy:
            before = ticks
            await copy.write_rows((n,) for n in range(50_000))
            assert ticks - before >= 90
            before = ticks
            await copy.write(b"1\n" * 500_000)
            assert ticks - before >= 1
        async with connection.cursor().copy("copy t to stdout") as copy:
            before = ticks
            assert len([row async for row in copy.rows()]) == 551_000
            assert ticks - before >= 100
        ticking.cancel()

    run(main)


def test_a_task_cancelled_in_a_copy_costs_the_connection(run):
    async def main(connection):
        async def work():
            query = "copy (select 1, pg_sleep(60)) to stdout"
            async with connection.cursor().copy(query) as copy:
                await copy.read()

        task = asyncio.create_task(work())
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert connection.closed

    run(main)


def test_notifications_come_to_a_task(run, looking):
    async def main(connection):
        await connection.execute("listen aio_channel")
        await connection.commit()
        looking.rows("select pg_notify('aio_channel', 'hello')")
        come = [n async for n in connection.notifies(timeout=30, stop_after=1)]
        assert [(one.channel, one.payload) for one in come] == [
            ("aio_channel", "hello")
        ]
        assert [n async for n in connection.notifies(timeout=0.05)] == []

    run(main)


@pytest.mark.fork
def test_a_child_cannot_use_it(run):
    async def main(connection):
        await connection.execute("select 1")
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            signal.alarm(SECONDS)
            with contextlib.suppress(BaseException):
                await connection.execute("select 2")
                os._exit(1)
            connection.sync.close()
            os.write(write, b"refused")
            os._exit(0)
        os.close(write)
        with open(read, "rb") as told:  # noqa: ASYNC230, PTH123 - a descriptor
            assert told.read() == b"refused"
        os.waitpid(pid, 0)  # noqa: ASYNC222 - it has ended
        assert await (await connection.execute("select 3")).fetchone() == (3,)

    run(main)


def test_without_a_loop_nothing_waits(dsn):
    async def main():
        return await aio.connect(dsn)

    connection = asyncio.run(main())
    with pytest.raises(RuntimeError, match="no running event loop"):
        connection.sync.execute("select 1")
    assert connection.closed
