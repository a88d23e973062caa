"""What happens to the turn and to the error that is remembered, whatever comes between.

Interruptions, forks, errors of every kind.
"""

from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest
from sqlalchemy import create_engine, exc

import poolproof
from plugins.dbapi import OperationalError
from plugins.outages import fail_once, postpone, queued, try_to_connect, under_way
from plugins.processes import ForkedChild, run_in_fork
from plugins.threads import Task, assert_whole, eventually

# --- what is remembered -------------------------------------------------------------


class _Local:
    pass


def test_remembered_error_keeps_no_frame_alive(make_pool, dbapi):
    pool = make_pool()
    seen = []

    def fail(_connection):
        local = _Local()
        seen.append(weakref.ref(local))
        raise OperationalError("down")

    dbapi.script["connect"] = fail
    fail_once(pool)
    gc.collect()
    assert seen[0]() is None


class _OddError(Exception):
    """Cannot be copied: its constructor wants more than it keeps."""

    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


def test_error_that_cannot_be_copied_is_told_in_words(make_pool, dbapi):
    pool = make_pool()
    dbapi.script["connect"] = _OddError("quite", "odd")
    pool._connecting._limit = 1
    with pytest.raises(_OddError):
        pool.connect()
    postpone(pool)
    with pytest.raises(poolproof.BreakerOpen) as caught:
        pool.connect()
    assert str(caught.value.__cause__) == "_OddError: quite odd"


def test_deadline_that_led_to_the_error_is_remembered_with_it(make_pool, dbapi):
    pool = make_pool()
    error = OperationalError("slow")
    error.__cause__ = poolproof.DeadlineExceeded("connect", 2)
    dbapi.script["connect"] = error
    fail_once(pool)
    postpone(pool)
    with pytest.raises(OperationalError, match="not asked again") as caught:
        pool.connect()
    assert isinstance(caught.value.__cause__, poolproof.DeadlineExceeded)


# --- interruptions ------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupted_attempt_is_no_failure_and_passes_the_turn_on(
    make_pool, dbapi, server, error
):
    pool = make_pool()
    fail_once(pool)
    postpone(pool, 0)
    dbapi.script["connect"] = error
    with pytest.raises(error) as caught:
        pool.connect()
    assert pool.stats().connect_failures == 1
    assert under_way(pool) == 0
    dbapi.script["connect"] = server.connect
    server.is_up = True
    postpone(pool, 0)
    # Although the error, which is kept here, still refers to the frame.
    pool.connect().close()
    del caught
    assert_whole(pool, dbapi, 20)


def test_own_error_that_is_kept_does_not_keep_the_turn(make_pool, dbapi, server):
    pool = make_pool(checkout_timeout=20)
    kept = []
    for _ in range(3):
        postpone(pool, 0)
        with pytest.raises(OperationalError) as caught:
            pool.connect()
        kept.append(caught.value)
    assert under_way(pool) == 0
    server.is_up = True
    postpone(pool, 0)
    pool.connect().close()
    assert len(kept) == 3


# --- forks --------------------------------------------------------------------------


@pytest.mark.fork
def test_child_begins_in_good_health_while_one_tries_and_others_wait(
    make_pool, dbapi, server
):
    pool = make_pool(connect_retry_for=20)
    fail_once(pool)
    postpone(pool)
    server.hold = threading.Event()
    tasks = [Task(try_to_connect, pool) for _ in range(4)]
    eventually(lambda: queued(pool) == 4)
    postpone(pool, 0)
    eventually(lambda: server.entered == 2)
    postpone(pool)

    def child():
        dbapi.script.clear()
        failures = pool.stats().connect_failures
        began = time.monotonic()
        for one in [pool.connect() for _ in range(20)]:
            one.close()
        return failures, time.monotonic() - began, queued(pool)

    report = run_in_fork(child).assert_silent()
    failures, seconds, waiting = report.result
    assert (failures, waiting) == (0, 0)
    assert seconds < 10
    server.is_up = True
    server.hold.set()
    for one in tasks:
        one.result().close()


@pytest.mark.fork
def test_child_fails_and_waits_by_itself(make_pool, server):
    pool = make_pool()
    fail_once(pool)

    def child():
        fail_once(pool)
        postpone(pool)
        error = try_to_connect(pool)
        return type(error).__name__, "not asked again" in str(error)

    children = [ForkedChild(child) for _ in range(2)]
    for one in children:
        report = one.report().assert_silent()
        assert report.result == ("OperationalError", True)
    assert pool.stats().connect_failures == 1


# --- by other roads -----------------------------------------------------------------


def test_engine_tells_the_same(make_engine_over, server):
    engine = make_engine_over()
    with pytest.raises(exc.OperationalError):
        engine.connect()
    postpone(engine.pool)
    with pytest.raises(exc.OperationalError, match="not asked again") as caught:
        engine.connect()
    assert isinstance(caught.value.orig, OperationalError)


@pytest.fixture
def make_engine_over(dbapi):
    made = []

    def make(**parameters):
        engine = create_engine(
            "postgresql+psycopg2://127.0.0.1/stub",
            module=dbapi,
            _initialize=False,
            poolclass=poolproof.Pool,
            **parameters,
        )
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.dispose()


def test_recreated_pool_begins_in_good_health(make_pool, server):
    pool = make_pool()
    fail_once(pool)
    server.is_up = True
    again = pool.recreate()
    assert again.stats().connect_failures == 0
    again.connect().close()
    again.dispose()


# --- who may begin ------------------------------------------------------------------


class _SlowOnce:
    """A gate that takes its time for whoever comes first."""

    def __init__(self, gate):
        self.gate = gate
        self.entered, self.goes_on = threading.Event(), threading.Event()

    def acquire(self):
        if not self.entered.is_set():
            self.entered.set()
            assert self.goes_on.wait(10)
        return self.gate.acquire()

    def snapshot(self):
        return self.gate.snapshot()


def test_two_that_find_an_attempt_due_begin_one(make_pool, server):
    """One has found it due, and has not yet said that it begins."""
    pool = make_pool()
    fail_once(pool)
    postpone(pool, 0)
    connecting = pool._connecting
    now = connecting._next_at
    connecting._gate = slow = _SlowOnce(connecting._gate)
    first = Task(lambda: connecting._begin(now))
    assert slow.entered.wait(10)
    assert connecting._begin(now) is None
    slow.goes_on.set()
    attempt = first.result()
    assert attempt is not None
    attempt.vacate()
