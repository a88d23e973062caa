"""Tasks that wait for a lease: cancelled, many, in several loops, after a fork."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import threading
import time

import psutil
import pytest
from sqlalchemy import text

from plugins.processes import run_in_fork
from plugins.threads import eventually
from poolproof import AsyncLease, ControlError, Lease, LeaseForked, LeaseTimeout
from poolproof.control import notifier

PROGRAM = """
    import asyncio, sys
    from sqlalchemy import create_engine
    import poolproof

    engine = create_engine(sys.argv[1])
    lease = poolproof.AsyncLease(engine, sys.argv[2], ttl=600, timeout=None)
"""
HELD = (
    PROGRAM
    + """
    async def main():
        async with lease:
            print(lease.fence)
            await asyncio.sleep(60)

    asyncio.run(main())
"""
)
KEPT = (
    PROGRAM
    + """
    print(asyncio.run(lease.acquire()).fence)
"""
)
WAITING = (
    PROGRAM
    + """
    async def main():
        asyncio.get_running_loop().call_later(0.2, print, "waiting")
        await lease.acquire()

    asyncio.run(main())
"""
)


@pytest.fixture
def url(pg_url):
    return pg_url("psycopg2").render_as_string(hide_password=False)


# --- cancelled ------------------------------------------------------------------------


def test_whoever_is_cancelled_while_waiting_leaves_nothing(play, name, row):
    async def story(engine):
        async with AsyncLease(engine, name, ttl=600) as held:
            waiting = AsyncLease(engine, name, ttl=600)
            task = asyncio.create_task(waiting.acquire())
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(waiting.acquire(), 0.2)
            assert row(name)["fence"] == held.fence
        async with waiting as later:
            assert later.fence > held.fence

    play(story)


def test_what_was_granted_to_a_cancelled_task_is_given_back(play, name):
    """At whatever instant it is cancelled, the next one gets it long before the ttl."""

    async def story(engine):
        chance = random.Random(7)  # noqa: S311 - when to cancel
        leases, granted = [], 0
        async with AsyncLease(engine, f"{name} that keeps the connections open"):
            for _ in range(40):
                lease = AsyncLease(engine, name, ttl=600)
                leases.append(lease)  # nobody's end gives it back
                task = asyncio.create_task(lease.acquire())
                await asyncio.sleep(chance.uniform(0, 0.02))
                task.cancel()
                try:
                    await task
                except asyncio.CancelledError:
                    continue
                granted += 1
                await lease.release()
            async with AsyncLease(engine, name, timeout=20):
                pass
        return granted

    assert play(story) < 40


def test_a_release_goes_on_though_its_task_is_cancelled(play, name, row, until):
    async def story(engine):
        lease = await AsyncLease(engine, name, ttl=600).acquire()
        async with engine.begin() as connection:
            query = text("select 1 from poolproof_lease where name = :name for update")
            await connection.execute(query, {"name": name})  # the server takes its time
            task = asyncio.create_task(lease.release())
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await until(lambda: row(name)["token"] is None)

    play(story)


def test_a_block_that_is_cancelled_gives_it_back(play, name, row):
    async def story(engine):
        async def work():
            async with AsyncLease(engine, name, ttl=600):
                held.set()
                await asyncio.sleep(60)

        held = asyncio.Event()
        task = asyncio.create_task(work())
        await held.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert row(name)["token"] is None

    play(story)


# --- many -----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [30, pytest.param(100, marks=pytest.mark.soak)])
def test_many_tasks_wait_in_no_thread_and_the_loop_goes_on(play, name, count):
    async def story(engine):
        ticks = []
        inside = []

        async def tick():
            while True:
                ticks.append(time.monotonic())
                await asyncio.sleep(0.01)

        async def work():
            async with AsyncLease(engine, name, ttl=4, timeout=None) as lease:
                inside.append(lease.fence)
                assert len(inside) == 1
                await asyncio.sleep(0)
                inside.clear()
                return lease.fence

        async with AsyncLease(engine, name):
            threads = psutil.Process().num_threads()
            tasks = [asyncio.create_task(work()) for _ in range(count)]
            ticker = asyncio.create_task(tick())
            began = time.monotonic()
            await asyncio.sleep(0.5)
            assert not any(task.done() for task in tasks)
            assert psutil.Process().num_threads() <= threads
        fences = await asyncio.gather(*tasks)
        lasted = time.monotonic() - began
        ticker.cancel()
        return sorted(fences) == sorted(set(fences)), len(ticks) / lasted

    are_unique, rate = play(story)
    assert are_unique
    assert rate > 5, "of 100 ticks a second"


# --- loops ----------------------------------------------------------------------------


def test_loops_of_two_threads_take_turns(play, name):
    errors, fences = [], []

    def run():
        async def story(engine):
            for _ in range(3):
                async with AsyncLease(engine, name, ttl=2) as lease:
                    fences.append(lease.fence)
                    lease.check()

        try:
            play(story)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert not errors
    assert fences == sorted(set(fences))
    assert len(fences) == 6


def test_it_may_be_released_in_another_loop(engine, name, row):
    lease = asyncio.run(AsyncLease(engine, name, ttl=600).acquire())
    lease.check()
    asyncio.run(lease.release())
    assert row(name)["token"] is None


def test_a_loop_that_has_closed_harms_nobody(
    engine, name, observer, eventually, caplog
):
    told = []
    of_a_closed_loop = AsyncLease(engine, name, ttl=1, on_lost=told.append)
    asyncio.run(of_a_closed_loop.acquire())
    other = Lease(engine, f"{name} 2", ttl=1, on_lost=told.append).acquire()
    observer.rows("delete from poolproof_lease where name = %s", name)
    eventually(lambda: "its loop has closed" in caplog.text)
    observer.rows("delete from poolproof_lease where name = %s", other.name)
    eventually(lambda: told == [other])
    asyncio.run(of_a_closed_loop.release())
    other.release()


def test_a_task_whose_loop_was_closed_waits_no_more(engine, name, row, caplog):
    loop = asyncio.new_event_loop()
    with Lease(engine, name, ttl=600) as held:
        lease = AsyncLease(engine, name, ttl=600)
        task = loop.create_task(lease.acquire())
        loop.run_until_complete(asyncio.sleep(0.2))
        loop.close()
        del task
        gc.collect()
        assert "Task was destroyed" in caplog.text
    with Lease(engine, name) as after:
        assert row(name)["fence"] == after.fence > held.fence


def test_a_lease_that_is_forgotten_is_given_back(engine, name, row, eventually):
    asyncio.run(AsyncLease(engine, name, ttl=600).acquire())
    gc.collect()
    eventually(lambda: row(name)["token"] is None)


def test_without_a_notifier_the_answer_is_found_as_well(engine, name, monkeypatch):
    """At the interpreter's end no thread is to be had."""
    monkeypatch.setattr(notifier, "_notifiers", {})
    monkeypatch.setattr(notifier, "_ending", True)

    async def story():
        async with AsyncLease(engine, name):
            with pytest.raises(LeaseTimeout):
                await AsyncLease(engine, name, timeout=0.2).acquire()

    asyncio.run(story())


# --- processes ------------------------------------------------------------------------


@pytest.mark.fork
def test_a_child_does_not_hold_it_and_the_parent_goes_on(engine, name, row):
    loop = asyncio.new_event_loop()
    lease = AsyncLease(engine, name, ttl=3)
    loop.run_until_complete(lease.acquire())

    async def story():
        with pytest.raises(LeaseForked, match=f"process {os.getppid()} has it"):
            lease.check()
        with pytest.raises(LeaseForked):
            await lease.guard(None)
        with pytest.raises(LeaseForked):
            lease.stats()
        await lease.release()
        await lease.__aexit__(None, None, None)
        with pytest.raises(LeaseTimeout):
            await AsyncLease(engine, name, timeout=0).acquire()
        async with AsyncLease(engine, name + " of the child") as own:
            own.check()
        return own.fence

    report = run_in_fork(lambda: asyncio.run(story())).assert_silent()
    assert report.result > lease.fence
    renewals = lease.stats().renewals
    while lease.stats().renewals < renewals + 3:
        lease.check()
        time.sleep(0.01)
    assert row(name)["live"]
    loop.run_until_complete(lease.release())
    loop.close()
    assert row(name)["token"] is None


def test_the_interpreter_s_end_gives_it_back(url, program, name, row):
    holder = program(KEPT, url, name)
    assert int(holder.line()) > 0
    assert holder.wait() == 0
    assert row(name)["token"] is None


def test_ctrl_c_gives_it_back(url, program, name, row):
    holder = program(HELD, url, name)
    assert int(holder.line()) > 0
    holder.send(signal.SIGINT)
    assert holder.wait() == -signal.SIGINT
    assert row(name)["token"] is None


def test_ctrl_c_ends_the_wait(url, program, engine, name):
    with Lease(engine, name):
        waiting = program(WAITING, url, name)
        assert waiting.line() == "waiting"
        waiting.send(signal.SIGINT)
        assert waiting.wait() == -signal.SIGINT


def test_a_wait_that_was_given_up_takes_nothing_from_the_next(engine, name):
    """The task that waited hears of it when the object has been asked again."""

    async def ask_twice():
        lease = AsyncLease(engine, name)
        async with AsyncLease(engine, name):
            first = asyncio.create_task(lease.acquire())
            await asyncio.sleep(0.1)
            waiting = lease._leave()
            eventually(lambda: waiting.phase()[0] == "over")  # the loop stands still
            second = asyncio.create_task(lease.acquire())
            with pytest.raises(ControlError, match="given up"):
                await first
        await second
        lease.check()
        await lease.release()

    asyncio.run(ask_twice())
