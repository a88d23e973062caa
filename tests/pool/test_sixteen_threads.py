"""Sixteen threads at once in what rested on the interpreter lock.

`docs/decisions` has the table of these places. Needs no fixture, so that it runs beside
what a free-threaded Python lacks; POOLPROOF_TEST_SECONDS has each test run for longer.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import random
import sys
import threading
import time

import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeout

import poolproof
from plugins.dbapi import OperationalError, SocketDBAPI
from plugins.threads import Task, eventually
from poolproof._counts import Counts

THREADS = 16
SECONDS = float(os.environ.get("POOLPROOF_TEST_SECONDS", "0.4"))


@pytest.fixture(autouse=True)
def _restless():
    """Let the threads change places as often as an interpreter with a lock can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(work):
    """Run *work* with a number in each thread, all from one instant on."""
    start = threading.Barrier(THREADS)

    def begin(number):
        start.wait(30)
        return work(number)

    tasks = [Task(begin, number) for number in range(THREADS)]
    return [task.result(SECONDS + 120) for task in tasks]


def until_the_end():
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        yield


def test_no_count_is_lost():
    counts = Counts()
    words = [str(number) for number in range(50)]

    def work(_number):
        for word in words * 10:
            counts.add(word)
            counts.copy()

    at_once(work)
    assert counts.copy() == dict.fromkeys(words, 10 * THREADS)


def test_no_failed_attempt_is_lost():
    dbapi = SocketDBAPI()
    tried = itertools.count()

    def refuse(_connection):
        next(tried)
        raise OperationalError("refused")

    pool = poolproof.Pool(
        lambda: refuse(None), pool_size=THREADS, max_overflow=0, timeout=5
    )

    def work(_number):
        for _ in until_the_end():
            with contextlib.suppress(OperationalError):
                pool.connect()

    at_once(work)
    made = next(tried)
    assert pool.totals.connects.copy() == {"failed": made}
    assert pool._connecting._failed_ever.value == made
    assert pool.stats().in_use == 0
    pool.dispose()
    assert not dbapi.open


def test_all_that_a_pool_can_do_at_once_leaves_it_whole():  # noqa: C901 - a list of acts
    dbapi = SocketDBAPI()
    pool = poolproof.Pool(
        dbapi.connect,
        pool_size=4,
        max_overflow=2,
        timeout=5,
        max_idle=0.05,
        min_idle=1,
        hold_warning=30,
    )
    holders = {}
    clashes = []

    def use(chance):
        with pool.connect() as fairy:
            number = fairy.dbapi_connection.number
            # One step on a dictionary each: whoever finds another has shared it.
            if holders.setdefault(number, fairy) is not fairy:
                clashes.append(number)
            fairy.cursor().execute("select 1")
            holders.pop(number, None)
            if chance.random() < 0.05:
                fairy.invalidate()

    def in_a_block(chance):
        with poolproof.deadline(20):
            use(chance)

    def drop(_chance):
        circle = [pool.connect()]
        circle.append(circle)

    def look(_chance):
        stats = pool.stats()
        assert 0 <= stats.in_use <= THREADS + 6
        assert poolproof.snapshot().pools

    def end_all(chance):
        if chance.random() < 0.1:
            pool.dispose()
            gc.collect()

    def work(number):
        chance = random.Random(number)  # noqa: S311 - no secret
        doing = [use, use, use, in_a_block, drop, look, end_all]
        for _ in until_the_end():
            try:
                chance.choice(doing)(chance)
            except PoolTimeout:
                gc.collect()  # what was dropped has the slots

    at_once(work)
    gc.collect()
    assert clashes == []
    eventually(lambda: pool.stats().in_use == 0 and pool.stats().waiting == 0)
    pool.dispose()
    # What the keeper opens ahead of need at that instant is closed as well.
    eventually(lambda: not pool.stats().maintenance)
    pool.dispose()
    assert list(dbapi.open) == []
