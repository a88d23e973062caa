"""The keeper: one thread while something is due, none otherwise, and it goes on.

Long, because it is one idea: the life of that thread.
"""

from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest
from sqlalchemy import event

import poolproof
from plugins.pools import rest
from plugins.threads import Task, assert_whole, eventually
from poolproof import _native
from poolproof.pool import maintenance, maintenance_thread

pytestmark = pytest.mark.difference

FOREVER = 600.0


@pytest.fixture
def pool_class():
    return poolproof.Pool


@pytest.fixture
def looks(monkeypatch):
    """Count the keeper's looks at pools."""
    counted = []
    tend = maintenance.tend

    def counting(pool, plan):
        counted.append(time.monotonic())
        return tend(pool, plan)

    monkeypatch.setattr(maintenance, "tend", counting)
    return counted


def keepers():
    return [
        thread
        for thread in threading.enumerate()
        if thread.name == maintenance_thread.NAME
    ]


def wait_until_it_sleeps(pool):
    """Return when the keeper has planned its next look at a pool."""
    eventually(lambda: time.monotonic() < pool.next_look < maintenance.NEVER)


def test_difference_pool_without_such_knobs_has_no_keeper(make_pool):
    pool = make_pool(max_idle=None, max_lifetime=None)
    rest(pool, 2)
    time.sleep(0.05)
    pool.dispose()
    assert not keepers()


def test_difference_one_keeper_serves_all_pools(make_pool, dbapi):
    pools = [make_pool(max_idle=1) for _ in range(5)]
    for pool in pools:
        rest(pool, 1)
    assert len(keepers()) == 1
    eventually(lambda: not dbapi.open)
    eventually(lambda: not keepers())


def test_difference_keeper_ends_with_the_last_connection(make_pool):
    pools = [make_pool(), make_pool()]
    for pool in pools:
        rest(pool, 1)
    pools[0].dispose()
    time.sleep(0.05)
    assert len(keepers()) == 1
    pools[1].dispose()
    eventually(lambda: not keepers())


@pytest.fixture
def lingers(monkeypatch):
    monkeypatch.setattr(maintenance_thread, "LINGERS_S", 0.5)


@pytest.fixture
def started(monkeypatch):
    """Collect the keeper's threads as they begin."""
    found = []
    start = threading.Thread.start

    def counting(thread):
        if thread.name == maintenance_thread.NAME:
            found.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", counting)
    return found


def end_lingering(monkeypatch):
    """Have one that lingers for ever end now."""
    running = maintenance_thread._keepers[_native.generation()]
    eventually(lambda: running.lingers_until)
    monkeypatch.setattr(maintenance_thread, "LINGERS_S", 0.01)
    running.wake()
    eventually(lambda: not keepers())


def test_difference_tasks_that_dispose_share_one_thread(
    make_pool, started, monkeypatch
):
    monkeypatch.setattr(maintenance_thread, "LINGERS_S", FOREVER)
    pool = make_pool()
    for _ in range(50):
        rest(pool, 1)
        pool.dispose()
        pool = pool.recreate()
    assert len(started) == 1
    end_lingering(monkeypatch)


@pytest.mark.quick("socket")
def test_difference_tasks_that_dispose_hardly_wake_it(
    make_pool, lingers, started, monkeypatch
):
    woken = []
    read = maintenance_thread.MaintenanceThread._read_requests

    def counting(running, plans):
        woken.append(1)
        read(running, plans)

    monkeypatch.setattr(
        maintenance_thread.MaintenanceThread, "_read_requests", counting
    )
    pool = make_pool()
    begun = time.monotonic()
    tasks = 0
    while time.monotonic() - begun < 1 or tasks < 100:
        tasks += 1
        rest(pool, 1)
        pool.dispose()
        pool = pool.recreate()
    assert len(woken) < tasks / 2  # each began and ended a thread


def test_difference_a_late_call_does_not_end_the_lingering(make_pool, monkeypatch):
    monkeypatch.setattr(maintenance_thread, "LINGERS_S", FOREVER)
    pool = make_pool()
    rest(pool, 1)
    pool.dispose()
    (thread,) = keepers()
    running = maintenance_thread._keepers[_native.generation()]
    eventually(lambda: running.lingers_until)
    running.wake()  # what it asked for was read before
    eventually(running._wakeup.locked)
    time.sleep(0.05)
    assert keepers() == [thread]
    end_lingering(monkeypatch)


def test_difference_dispose_is_heard_by_one_that_has_read_what_was_asked(make_pool):
    pool = make_pool(max_idle=FOREVER)
    rest(pool, 1)
    wait_until_it_sleeps(pool)
    running = maintenance_thread._keepers[_native.generation()]
    running.lingers_until = time.monotonic() + FOREVER  # as it was a moment ago
    pool.dispose()
    eventually(lambda: not keepers())


def test_difference_dispose_is_heard_beside_what_was_asked_before(
    make_pool, monkeypatch
):
    """Both are read before the first look, which finds nothing."""
    reading, disposed = threading.Event(), threading.Event()
    plan = maintenance_thread.Plan

    def planning(watch):
        monkeypatch.undo()
        reading.set()
        assert disposed.wait(FOREVER)
        return plan(watch)

    monkeypatch.setattr(maintenance_thread, "Plan", planning)
    pool = make_pool(max_idle=FOREVER)
    rest(pool, 1)
    assert reading.wait(FOREVER)
    pool.dispose()
    disposed.set()
    eventually(lambda: not keepers())


def test_difference_dispose_is_heard_by_one_that_is_about_to_start_again(
    make_pool, monkeypatch
):
    """What was asked for as the thread ended has it start again, after the dispose."""
    ending, asked, ended, disposed = (threading.Event() for _ in range(4))
    forget = maintenance_thread._forget

    def forgetting(plans):
        monkeypatch.undo()
        ending.set()
        assert asked.wait(FOREVER)
        forget(plans)

    first = make_pool()
    rest(first, 1)
    running = maintenance_thread._keepers[_native.generation()]
    start_again = running._start_again

    def starting_again():
        running._thread._ended = start_again
        ended.set()
        assert disposed.wait(FOREVER)
        start_again()

    monkeypatch.setattr(maintenance_thread, "_forget", forgetting)
    running._thread._ended = starting_again
    first.dispose()
    assert ending.wait(FOREVER)
    pool = make_pool(max_idle=FOREVER)
    rest(pool, 1)
    asked.set()
    assert ended.wait(FOREVER)
    pool.dispose()
    disposed.set()
    eventually(lambda: not keepers())


def test_difference_what_is_due_sooner_wakes_one_that_lingers(
    make_pool, dbapi, monkeypatch
):
    monkeypatch.setattr(maintenance_thread, "LINGERS_S", FOREVER)
    pool = make_pool()
    rest(pool, 1)
    pool.dispose()
    (thread,) = keepers()
    running = maintenance_thread._keepers[_native.generation()]
    eventually(lambda: running.lingers_until)
    pool = make_pool(max_idle=0.05)
    rest(pool, 2)
    eventually(lambda: not dbapi.open)
    eventually(lambda: running.lingers_until)
    waiting = make_pool(min_idle=2)
    rest(waiting, 1)
    eventually(lambda: waiting.checkedin() >= 2)  # 3, if it was faster than the caller
    assert keepers() == [thread]
    waiting.dispose()
    end_lingering(monkeypatch)


@pytest.mark.quick("socket")
def test_difference_what_comes_to_rest_beside_one_that_lingers_is_looked_after(
    make_pool, dbapi, lingers
):
    pool = make_pool()
    rest(pool, 1)
    pool.dispose()
    running = maintenance_thread._keepers[_native.generation()]
    eventually(lambda: running.lingers_until)
    late = make_pool(max_idle=0.8)  # not sooner than it looks by itself
    rest(late, 2)
    eventually(lambda: not dbapi.open)


def test_difference_keeper_keeps_no_pool_alive_and_ends_with_the_last(dbapi):
    pool = poolproof.Pool(dbapi.connect, min_idle=1, hold_warning=FOREVER)
    rest(pool, 1)
    reference = weakref.ref(pool)
    wait_until_it_sleeps(pool)
    del pool
    eventually(lambda: gc.collect() * 0 or reference() is None)
    eventually(lambda: not keepers())


def test_difference_keeper_that_is_told_of_a_pool_before_others_are_ends(dbapi):
    """Python 3.15 tells all who want to know before it clears the other references."""

    def take_time(_reference):
        time.sleep(0.05)

    pool = poolproof.Pool(dbapi.connect, max_idle=FOREVER)
    # One of them is told after the keeper, whichever order they are told in.
    before = weakref.ref(pool, take_time)
    rest(pool, 1)
    wait_until_it_sleeps(pool)
    after = weakref.ref(pool, take_time)
    pool.circle = pool
    del pool
    gc.collect()
    assert before() is after() is None
    eventually(lambda: not keepers())


def test_difference_keeper_that_is_not_told_of_a_pools_end_ends_all_the_same(
    dbapi, monkeypatch
):
    """Python 3.15 tells nobody who has met a pool while it was being collected."""
    keeper = maintenance_thread.MaintenanceThread
    monkeypatch.setattr(keeper, "_collected", lambda _self, _reference: None)
    pool = poolproof.Pool(dbapi.connect, max_idle=FOREVER)
    rest(pool, 1)
    wait_until_it_sleeps(pool)
    del pool
    gc.collect()
    eventually(lambda: not keepers())


def test_difference_keeper_sleeps_while_nothing_is_due(make_pool, looks):
    pool = make_pool(min_idle=1, hold_warning=FOREVER)
    rest(pool, 1)

    def sleeps():
        before = len(looks)
        time.sleep(0.3)
        return len(looks) == before

    eventually(sleeps)  # what it was asked for until now is done
    before = len(looks)
    for _ in range(2000):
        pool.connect().close()
    assert len(looks) - before < 12


@pytest.mark.parametrize(
    "knobs",
    [
        {"max_idle": FOREVER, "max_lifetime": None},
        {"max_idle": None, "max_lifetime": FOREVER},
        {"max_idle": None, "max_lifetime": None, "hold_warning": FOREVER},
        {"min_idle": 1},
        {"min_idle": 5, "max_idle": FOREVER, "max_lifetime": None},
    ],
    ids=str,
)
@pytest.mark.quick("socket")
def test_difference_use_does_not_wake_the_keeper_again_and_again(
    make_pool, looks, knobs
):
    pool = make_pool(**knobs)
    for _ in range(3000):
        pool.connect().close()
    assert len(looks) < 12


def test_difference_failing_close_listener_neither_ends_the_keeper_nor_loses_slots(
    make_pool, dbapi, caplog
):
    pool = make_pool(max_idle=0.05)
    failures = []

    def refuse(*_):
        failures.append(1)
        raise ZeroDivisionError

    event.listen(pool, "close", refuse)
    rest(pool, 2)
    eventually(lambda: len(failures) == 2)
    eventually(lambda: pool.checkedin() == 0)
    eventually(lambda: "poolproof: Closing a connection failed" in caplog.messages)
    event.remove(pool, "close", refuse)
    rest(pool, 2)
    eventually(lambda: pool.checkedin() == 0)
    for connection in list(dbapi.open.values()):
        connection.close()  # the listener had them left open
    assert_whole(pool, dbapi, 15)


def test_difference_whatever_a_look_raises_the_keeper_goes_on(
    make_pool, dbapi, caplog, monkeypatch
):
    tend = maintenance.tend
    broken = []

    def fail_once(pool, plan):
        if not broken:
            broken.append(True)
            raise MemoryError
        return tend(pool, plan)

    monkeypatch.setattr(maintenance, "tend", fail_once)
    monkeypatch.setattr(maintenance_thread, "_AFTER_ERROR_S", 0.05)
    pool = make_pool(max_idle=0.05)
    rest(pool, 1)
    eventually(lambda: not dbapi.open)
    assert any("Looking after pool" in message for message in caplog.messages)


def test_difference_keeper_that_is_ended_starts_again_when_needed(
    make_pool, dbapi, caplog, monkeypatch
):
    tend = maintenance.tend

    def exit_once(pool, plan):
        monkeypatch.setattr(maintenance, "tend", tend)
        raise SystemExit

    monkeypatch.setattr(maintenance, "tend", exit_once)
    pool = make_pool(max_idle=0.05)
    rest(pool, 1)
    eventually(lambda: not keepers())
    assert any("was ended" in message for message in caplog.messages)
    rest(pool, 1)
    eventually(lambda: not dbapi.open)


def test_difference_no_thread_to_be_had_disturbs_no_caller(
    make_pool, dbapi, caplog, monkeypatch
):
    start = threading.Thread.start

    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    pool = make_pool(max_idle=0.05)
    rest(pool, 1)
    assert any("cannot start" in message for message in caplog.messages)
    monkeypatch.setattr(threading.Thread, "start", start)
    rest(pool, 1)
    eventually(lambda: not dbapi.open)


def test_difference_recreated_pool_has_the_same_knobs(make_pool):
    pool = make_pool(max_idle=5.0, max_lifetime=6.0, min_idle=3, hold_warning=7.0)
    again = pool.recreate()
    assert again.settings == pool.settings


@pytest.mark.parametrize("use_lifo", [False, True])
def test_difference_keeper_beside_sixteen_threads_loses_and_doubles_nothing(
    make_pool, dbapi, monkeypatch, use_lifo
):
    monkeypatch.setattr(maintenance, "expiry", lambda _: time.monotonic() + 0.004)
    pool = make_pool(
        pool_size=4, max_overflow=2, min_idle=2, max_idle=0.001, use_lifo=use_lifo
    )
    holders, clashes, longest = {}, [], []

    def work(name):
        for turn in range(150):
            began = time.monotonic()
            with pool.connect() as fairy:
                longest.append(time.monotonic() - began)
                number = fairy.dbapi_connection.number
                if holders.setdefault(number, name) != name:
                    clashes.append((number, name))
                if fairy.dbapi_connection.closed:
                    clashes.append((number, "closed"))
                if holders.pop(number, None) != name:
                    clashes.append((number, name))
            if turn % 10 == name % 10:
                time.sleep(0.003)  # now and then there are some that rest

    for task in [Task(work, name) for name in range(16)]:
        task.result(50)
    assert clashes == []
    assert dbapi.peak <= 6
    assert max(longest) < 15
    discarded = pool.stats().discarded
    assert discarded.get("lifetime", 0) > 10
    eventually(lambda: pool.checkedin() == 2, what=f"{pool.status()}")
    pool.dispose()
    eventually(lambda: not dbapi.open)
    assert_whole(pool, dbapi, 6)
