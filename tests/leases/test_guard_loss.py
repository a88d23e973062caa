"""A guard that was refused loses the lease, for everybody who asks about it."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import pytest
from sqlalchemy import text

from poolproof import AsyncLease, Lease, LeaseLost

TAKE = (
    "update poolproof_lease set fence = default, token = 'x',"
    " expires_at = clock_timestamp() + interval '600 seconds' where name = %s"
)


def test_a_lease_whose_guard_was_refused_is_lost(engine, name, observer, eventually):
    told = []
    lease = Lease(engine, name, ttl=600, on_lost=told.append).acquire()
    observer.rows(TAKE, name)
    with pytest.raises(LeaseLost, match="another holder"), engine.begin() as connection:
        lease.guard(connection)
    assert lease.lost.is_set()
    assert repr(lease).endswith("lost>")
    with pytest.raises(LeaseLost, match="another holder"):
        lease.check()
    eventually(lambda: told == [lease])
    lease.release()
    assert told == [lease]


def test_on_lost_is_called_though_nobody_has_the_lease_any_more(
    engine, name, observer, eventually
):
    """The notifier may come late: it hangs in another's `on_lost` here."""
    told, hanging, goes_on = [], threading.Event(), threading.Event()

    def hang(_lease):
        hanging.set()
        goes_on.wait(20)

    def work(number, on_lost):
        with Lease(engine, f"{name} {number}", ttl=600, on_lost=on_lost) as lease:
            observer.rows(TAKE, lease.name)
            with engine.begin() as connection:
                lease.guard(connection)

    def note(lease):
        told.append((lease.name, lease.lost.is_set()))

    with pytest.raises(LeaseLost):
        work(0, hang)
    assert hanging.wait(20)
    try:
        for number in (1, 2):
            with pytest.raises(LeaseLost):
                work(number, note)
        gc.collect()
        assert not told
    finally:
        goes_on.set()
    eventually(lambda: told == [(f"{name} {number}", True) for number in (1, 2)])


def test_a_guard_that_was_refused_in_error_gives_it_back(engine, name, row, eventually):
    """A snapshot from before the acquisition does not see it: nobody waits for it."""
    repeatable = engine.execution_options(isolation_level="REPEATABLE READ")
    with Lease(engine, name + " other"), repeatable.begin() as connection:
        connection.execute(text("select 1 from poolproof_lease"))
        lease = Lease(engine, name, ttl=600).acquire()
        with pytest.raises(LeaseLost):
            lease.guard(connection)
        eventually(lambda: row(name)["token"] is None)
    with Lease(engine, name, timeout=0):
        pass
    lease.release()


def test_a_guard_after_the_release_is_no_alarm(engine, name):
    told = []
    lease = Lease(engine, name, on_lost=told.append).acquire()
    query = text("select 1 from poolproof_lease where name = :name for update")
    with engine.begin() as connection:
        connection.execute(query, {"name": name})  # the release waits for it
        lease._native.leave()
        lease._native.disown("too late")
    lease.release()
    assert repr(lease).endswith("over>")
    assert not lease.lost.is_set()
    assert not told


def test_on_lost_is_called_though_the_loop_was_late(play, name, until):
    """It was lost before the loop heard that it was acquired."""

    async def story(engine):
        told = []
        lease = AsyncLease(engine, name, ttl=1, max_silence=0.01, on_lost=told.append)
        async with AsyncLease(engine, name + " other"):
            task = asyncio.create_task(lease.acquire())
            await asyncio.sleep(0)
            time.sleep(1.5)  # noqa: ASYNC251 - the loop is to be late
            await task
            await until(lambda: told == [lease])

    play(story)


@pytest.mark.parametrize("block", [False, True], ids=["acquire", "block"])
def test_the_same_for_asyncio(play, name, observer, until, block):
    async def story(engine):
        told = []
        lease = AsyncLease(engine, name, ttl=600, on_lost=told.append)

        async def work():
            observer.rows(TAKE, name)
            async with engine.begin() as connection:
                await lease.guard(connection)

        async def whole():
            async with lease:
                await work()

        if not block:
            await lease.acquire()
        with pytest.raises(LeaseLost, match="another holder"):
            await (whole() if block else work())
        with pytest.raises(LeaseLost):
            lease.check()
        await asyncio.wait_for(lease.lost.wait(), 20)
        await until(lambda: told == [lease])
        await lease.release()

    play(story)
