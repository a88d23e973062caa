"""`Connection.cancel` ends the statement that it was for, and never the next one."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time

import pytest

import poolproof.driver as dbapi
from plugins.threads import Task, eventually
from poolproof import _native
from poolproof.drill.proxy import Proxy
from poolproof.drill.target import Address
from poolproof.driver import aio

LOCK = 0x63616E63
WAITS = f"select pg_advisory_lock({LOCK})"


@pytest.fixture
def proxy(contrib_pg):
    with Proxy(Address(contrib_pg.host, contrib_pg.port)) as started:
        yield started


@pytest.fixture
def through(contrib_pg, proxy):
    """Say how to connect through the proxy."""
    return {
        "host": "127.0.0.1",
        "port": proxy.port,
        "user": "postgres",
        "sslmode": "disable",
    }


@pytest.fixture
def connection(through):
    with contextlib.closing(dbapi.connect(autocommit=True, **through)) as opened:
        yield opened


@pytest.fixture
def held(other):
    """Hold what a statement is to wait for; call it to let go."""
    other.execute(f"select pg_advisory_lock({LOCK})")
    yield lambda: other.execute(f"select pg_advisory_unlock({LOCK})")
    other.execute("select pg_advisory_unlock_all()")


def delay_newcomers(proxy, seconds):
    """Have a request to cancel arrive late, and nothing of what was there before."""
    proxy.delay(seconds)
    for link in proxy.links:
        link.delay(0)


def waits_for_lock(looking, connection):
    query = (
        "select count(*) from pg_stat_activity "
        "where pid = %s and wait_event = 'advisory'"
    )
    return looking.value(query, connection.info.backend_pid) == 1


def test_a_late_cancel_does_not_end_the_next_statement(
    connection, proxy, looking, held
):
    delay_newcomers(proxy, 0.5)
    first = Task(lambda: connection.execute(WAITS).fetchall())
    eventually(lambda: waits_for_lock(looking, connection))
    cancelling = Task(connection.cancel)
    eventually(lambda: len(proxy.links) == 2)
    held()
    assert len(first.result()) == 1
    for number in range(3):
        found = connection.execute("select %s::int, pg_sleep(0.5)", [number])
        assert found.fetchone()[0] == number
    cancelling.result()


def test_in_a_loop_neither(through, proxy, looking, held):
    async def main():
        connection = await aio.connect(autocommit=True, **through)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(connection.close)
            delay_newcomers(proxy, 0.5)
            first = asyncio.ensure_future(connection.execute(WAITS))
            while not waits_for_lock(looking, connection.sync):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            cancelling = asyncio.ensure_future(connection.cancel())
            while len(proxy.links) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            held()
            await first
            found = await connection.execute("select 1, pg_sleep(1)")
            assert (await found.fetchone())[0] == 1
            await cancelling

    asyncio.run(main())


def test_what_rests_is_not_cancelled(connection, proxy):
    connection.cancel()
    assert len(proxy.links) == 1  # the server was not asked
    assert connection.execute("select 1").fetchone() == (1,)
    connection.autocommit = False
    connection.execute("select 1")
    connection.cancel()
    assert connection.execute("select 2").fetchone() == (2,)


def test_a_handler_of_a_signal_cancels_what_its_own_thread_waits_for(
    connection, looking
):
    before = signal.signal(signal.SIGUSR1, lambda *_: connection.cancel())
    try:
        main = threading.get_ident()

        def send():
            query = (
                "select count(*) from pg_stat_activity "
                "where pid = %s and wait_event = 'PgSleep'"
            )
            eventually(lambda: looking.value(query, connection.info.backend_pid))
            signal.pthread_kill(main, signal.SIGUSR1)

        sending = Task(send)
        with pytest.raises(dbapi.OperationalError) as caught:
            connection.execute("select pg_sleep(60)")
        assert caught.value.sqlstate == "57014"
        sending.result()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert connection.execute("select 1").fetchone() == (1,)


def test_a_cancel_of_which_nothing_is_heard_is_an_error_that_says_so(
    connection, proxy, looking, held
):
    first = Task(lambda: connection.execute(WAITS).fetchall())
    eventually(lambda: waits_for_lock(looking, connection))
    proxy.stall()
    proxy.links[0].resume()
    with pytest.raises(_native.WireError) as caught:
        connection.wire.cancel(0.2)
    assert "end another statement" in str(caught.value)
    held()
    first.result()
    assert connection.execute("select 1").fetchone() == (1,)  # waits no longer


def test_a_lost_connection_is_not_waited_for(connection, proxy, looking, held):
    """A deadline shuts the socket while a request to cancel is on its way."""
    first = Task(lambda: connection.execute(WAITS).fetchall())
    eventually(lambda: waits_for_lock(looking, connection))
    proxy.stall()
    proxy.links[0].resume()
    began = time.monotonic()
    cancelling = Task(connection.cancel)  # for five seconds
    eventually(lambda: len(proxy.links) == 2)
    held()
    first.result()
    following = Task(lambda: connection.execute("select 1"))
    eventually(lambda: connection.wire.status == "A")
    proxy.links[0].cut()
    with pytest.raises(dbapi.OperationalError) as caught:
        following.result()
    waited = time.monotonic() - began
    assert caught.value.outcome == "not_done"
    with pytest.raises(dbapi.OperationalError):
        cancelling.result()
    assert waited < time.monotonic() - began
