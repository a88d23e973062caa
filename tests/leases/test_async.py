"""A lease in asyncio is acquired, guarded, released, and told of its loss."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
)

from poolproof import (
    AsyncLease,
    ControlError,
    Lease,
    LeaseError,
    LeaseLost,
    LeaseTimeout,
)
from poolproof.cli.main import main as cli

KINDS = ("connection", "session", "scoped session")

HOLDER = """
    import asyncio, sys
    from sqlalchemy import create_engine
    import poolproof

    engine = create_engine(sys.argv[1])

    async def main():
        async with poolproof.AsyncLease(engine, sys.argv[2], ttl=600) as lease:
            print(lease.fence)
            await asyncio.to_thread(sys.stdin.read)

    asyncio.run(main())
"""


@pytest.fixture
def url(pg_url):
    return pg_url("psycopg2").render_as_string(hide_password=False)


def test_a_block_holds_it_and_gives_it_back(play, name, row):
    async def story(engine):
        async with AsyncLease(engine, name, ttl=5) as lease:
            held = row(name)
            assert held["live"]
            assert held["fence"] == lease.fence
            lease.check()
            lease.touch()
            assert lease.stats().blips == 0
            with pytest.raises(LeaseError, match="already"):
                await lease.acquire()
        assert row(name)["token"] is None
        with pytest.raises(LeaseError, match="given back"):
            lease.check()
        async with lease:
            lease.check()

    play(story)


def test_another_waits_until_its_timeout_and_is_told_who_has_it(play, name):
    async def story(engine):
        async with AsyncLease(engine, name) as lease:
            began = time.monotonic()
            with pytest.raises(LeaseTimeout, match=f"fence {lease.fence}"):
                await AsyncLease(engine, name, timeout=0.3).acquire()
            assert time.monotonic() - began >= 0.3
            with pytest.raises(LeaseTimeout):
                await AsyncLease(engine, name, timeout=0).acquire()

    play(story)


def test_who_waits_gets_it_when_it_is_given_back(play, name):
    async def story(engine):
        first = await AsyncLease(engine, name).acquire()
        second = AsyncLease(engine, name)
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await first.release()
        assert await waiting is second
        assert second.fence > first.fence
        await second.release()

    play(story)


def test_it_is_exclusive_among_processes_and_with_the_sync_one(
    play, engine, name, url, program
):
    holder = program(HOLDER, url, name)
    fence = int(holder.line())

    async def story(of_asyncio):
        pid = holder.process.pid
        with pytest.raises(LeaseTimeout, match=f"process {pid} "):
            await AsyncLease(of_asyncio, name, timeout=0).acquire()
        holder.process.stdin.close()
        async with AsyncLease(of_asyncio, name) as lease:
            assert lease.fence > fence
            with pytest.raises(LeaseTimeout):
                Lease(engine, name, timeout=0).acquire()

    play(story)
    assert holder.wait() == 0


def test_what_the_server_refuses_is_an_error(play, name):
    async def story(engine):
        lease = AsyncLease(engine, name, table="no_such_schema.lease")
        with pytest.raises(ControlError, match="no_such_schema"):
            await lease.acquire()
        with pytest.raises(LeaseError, match="not acquired"):
            lease.check()

    play(story)


@pytest.mark.parametrize("kind", ["function", "coroutine function"])
def test_a_release_by_somebody_else_is_told_in_the_loop(play, name, url, until, kind):
    async def story(engine):
        told = []

        def hear(lease):
            told.append((lease, asyncio.get_running_loop(), threading.get_ident()))

        async def hear_later(lease):
            await asyncio.sleep(0.01)
            hear(lease)

        on_lost = hear if kind == "function" else hear_later
        lease = await AsyncLease(engine, name, ttl=1, on_lost=on_lost).acquire()
        assert (
            await asyncio.to_thread(cli, ["lease", "release", name, "--url", url]) == 0
        )
        await asyncio.wait_for(lease.lost.wait(), 20)
        await until(lambda: told)
        here = (lease, asyncio.get_running_loop(), threading.get_ident())
        assert told == [here]
        with pytest.raises(LeaseLost, match="released by somebody else"):
            lease.check()
        await lease.release()
        assert told == [here]

    play(story)


@pytest.mark.parametrize("kind", ["function", "coroutine function"])
def test_on_lost_that_fails_is_logged_and_the_next_is_called(
    play, name, observer, until, caplog, kind
):
    def fail(_lease):
        raise ZeroDivisionError

    async def fail_later(_lease):
        await asyncio.sleep(0)
        raise ZeroDivisionError

    async def story(engine):
        told = []
        failing = fail if kind == "function" else fail_later
        async with AsyncLease(engine, name + "2", ttl=600):
            first = await AsyncLease(engine, name, ttl=1, on_lost=failing).acquire()
            observer.rows("delete from poolproof_lease where name = %s", name)
            await until(lambda: "on_lost of a lease failed" in caplog.text)
            assert first.lost.is_set()
            second = AsyncLease(engine, name, ttl=1, on_lost=told.append)
            await second.acquire()
            observer.rows("delete from poolproof_lease where name = %s", name)
            await until(lambda: told == [second])

    play(story)


def test_the_task_of_on_lost_is_kept_until_it_is_done(play, name, observer, until):
    """What it waits for may be known to nobody else."""

    async def story(engine):
        waiting, done = [], []

        async def on_lost(_lease):
            future = asyncio.get_running_loop().create_future()
            waiting.append(weakref.ref(future))
            await future
            done.append(True)

        lease = await AsyncLease(engine, name, ttl=1, on_lost=on_lost).acquire()
        observer.rows("delete from poolproof_lease where name = %s", name)
        await until(lambda: waiting)
        del lease, on_lost
        gc.collect()
        waiting[0]().set_result(None)
        await until(lambda: done)

    play(story)


def test_leaving_the_block_says_that_it_was_lost(play, name, observer):
    async def story(engine):
        async with AsyncLease(engine, name, ttl=1) as lease:
            observer.rows("delete from poolproof_lease where name = %s", name)
            await asyncio.wait_for(lease.lost.wait(), 20)

    with pytest.raises(LeaseLost, match="deleted"):
        play(story)


def test_an_error_of_the_block_is_not_hidden_by_the_loss(play, name, observer):
    async def story(engine):
        async with AsyncLease(engine, name, ttl=1) as lease:
            observer.rows("delete from poolproof_lease where name = %s", name)
            await asyncio.wait_for(lease.lost.wait(), 20)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        play(story)


def test_a_check_in_another_thread_tells_the_loop(play, name, observer):
    async def story(engine):
        refused = []

        def work():
            try:
                while True:
                    lease.check()
                    time.sleep(0.01)
            except Exception as error:
                refused.append(type(error))

        async with AsyncLease(engine, name, ttl=1) as lease:
            waiting = asyncio.create_task(lease.lost.wait())
            await asyncio.sleep(0)
            observer.rows("delete from poolproof_lease where name = %s", name)
            worker = threading.Thread(target=work)
            worker.start()
            worker.join(20)  # meanwhile the loop hears of nothing
            assert refused == [LeaseLost]
            await asyncio.wait_for(waiting, 20)

    with pytest.raises(LeaseLost):
        play(story)


@pytest.fixture(params=["asyncpg", "psycopg"])
def async_driver(request):
    return request.param


@asynccontextmanager
async def transaction(engine, kind):
    """Open what can be guarded."""
    if kind == "scoped session":
        maker = async_sessionmaker(engine)
        scoped = async_scoped_session(maker, asyncio.current_task)
        try:
            yield scoped
        finally:
            await scoped.remove()
    else:
        opened = engine.connect() if kind == "connection" else AsyncSession(engine)
        async with opened as given:
            yield given


def test_a_guarded_transaction_keeps_others_out(play, name, observer, async_driver):
    """An expired lease is not taken over before the transaction has ended."""

    async def story(engine):
        for kind in KINDS:
            async with (
                AsyncLease(engine, name) as lease,
                transaction(engine, kind) as connection,
            ):
                await lease.guard(connection)
                await connection.execute(text("select 1"))
                observer.rows(
                    "update poolproof_lease set expires_at = '-infinity' "
                    "where name = %s",
                    name,
                )
                with pytest.raises(LeaseTimeout):
                    await AsyncLease(engine, name, timeout=0).acquire()
                await connection.commit()

    play(story, async_driver)


def test_a_guard_refuses_a_holder_whose_fence_is_over(
    play, name, observer, async_driver
):
    async def story(engine):
        lease = await AsyncLease(engine, name, ttl=600).acquire()
        observer.rows(
            "update poolproof_lease set fence = default, token = 'x' where name = %s",
            name,
        )
        for kind in KINDS:
            async with transaction(engine, kind) as connection:
                with pytest.raises(LeaseLost, match="another holder"):
                    await lease.guard(connection)
        await lease.release()

    play(story, async_driver)


def test_a_guard_refuses_what_it_cannot_bind(play, engine, name, async_driver):
    async def story(of_asyncio):
        async with AsyncLease(of_asyncio, name) as lease:
            with (
                engine.connect() as connection,
                pytest.raises(exc.ArgumentError, match="AsyncConnection"),
            ):
                await lease.guard(connection)
            async with of_asyncio.connect() as connection:
                with pytest.raises(LeaseError, match="autocommit"):
                    await lease.guard(connection)
        async with of_asyncio.connect() as connection:
            with pytest.raises(LeaseError, match="given back"):
                await lease.guard(connection)

    play(story, async_driver, isolation_level="AUTOCOMMIT")


def test_a_coroutine_function_is_not_for_the_sync_lease(engine, name):
    async def on_lost(_lease):
        pass

    with pytest.raises(exc.ArgumentError, match="AsyncLease"):
        Lease(engine, name, on_lost=on_lost)
    AsyncLease(engine, name, on_lost=on_lost)
