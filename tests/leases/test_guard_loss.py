"""A guard that was refused loses the lease, for everybody who asks about it."""

from __future__ import annotations

import asyncio

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


def test_a_block_that_a_guard_ends_calls_on_lost(engine, name, observer, eventually):
    """Also when nobody has the object any more when the notifier comes."""
    told = []

    def work(number):
        def on_lost(lease):
            told.append((lease.name, lease.lost.is_set()))

        with Lease(engine, f"{name} {number}", ttl=600, on_lost=on_lost) as lease:
            observer.rows(TAKE, lease.name)
            with engine.begin() as connection:
                lease.guard(connection)

    for number in range(20):
        with pytest.raises(LeaseLost):
            work(number)
    eventually(lambda: len(told) == 20)
    assert sorted(told) == sorted((f"{name} {n}", True) for n in range(20))


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
    lease._native.leave()
    lease._native.disown("too late")
    lease.release()
    assert not lease.lost.is_set()
    assert not told


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
