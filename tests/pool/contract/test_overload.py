"""When more callers come than can be served: some are served in time, not all too late.

`bench/overload.py` measures how many, with threads and greenlets.
"""

from __future__ import annotations

import threading
import time

import pytest
from sqlalchemy import exc
from sqlalchemy.pool import QueuePool

import poolproof
from plugins.threads import Task, assert_whole, wait_for_waiters

ours = pytest.mark.parametrize("pool_class", ["poolproof"], indirect=True)
HURRY_S = 0.2
# A machine that pauses for longer than the regime lasts shows nothing.
ATTEMPTS = 20


def queue_up(pool, served, names):
    """Start one waiter after the other; each notes its name when it is served."""

    def wait_and_note(name):
        with pool.connect():
            served.append(name)

    tasks = []
    for name in names:
        tasks.append(Task(wait_and_note, name))
        wait_for_waiters(pool, len(tasks))
    return tasks


def run_out(pool):
    """Let the time of one more caller run out in the queue; return when it did."""

    def hurry():
        with poolproof.deadline(HURRY_S), pytest.raises(exc.TimeoutError) as caught:
            pool.connect()
        caught.value.__traceback__ = None

    Task(hurry).result()
    return time.monotonic()


@pytest.mark.difference
@ours
def test_newest_is_served_first_once_the_time_of_another_has_run_out(make_pool, dbapi):
    pool = make_pool(pool_size=1, max_overflow=0)
    for _ in range(ATTEMPTS):
        held = pool.connect()
        served = []
        tasks = queue_up(pool, served, range(4))
        ran_out_at = run_out(pool)
        held.close()
        for task in tasks:
            task.result()
        if time.monotonic() - ran_out_at < HURRY_S * 1.5:
            break
    assert served == [3, 2, 1, 0]
    # The queue is empty: order of arrival again.
    assert not pool.stats().newest_first
    held = pool.connect()
    served = []
    tasks = queue_up(pool, served, range(4))
    held.close()
    for task in tasks:
        task.result()
    assert served == [0, 1, 2, 3]
    assert_whole(pool, dbapi, 1)


@pytest.mark.difference
@ours
def test_order_of_arrival_comes_back_though_the_queue_never_empties(make_pool, dbapi):
    """One caller in a hurry does not cost a patient crowd its order for good."""
    pool = make_pool(pool_size=1, max_overflow=0)
    held = pool.connect()
    served = []
    tasks = queue_up(pool, served, range(4))
    run_out(pool)
    deadline = time.monotonic() + 20
    while pool.stats().newest_first:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    held.close()
    for task in tasks:
        task.result()
    assert served == [0, 1, 2, 3]
    assert_whole(pool, dbapi, 1)


@pytest.mark.difference
@ours
def test_one_who_is_interrupted_in_the_queue_changes_no_order(make_pool):
    pool = make_pool(pool_size=1, max_overflow=0, timeout=0)
    held = pool.connect()
    with pytest.raises(exc.TimeoutError):
        pool.connect()  # who does not wait does not run out of time
    pool._timeout = 20
    served = []
    tasks = queue_up(pool, served, range(2))
    assert not pool.stats().newest_first
    held.close()
    for task in tasks:
        task.result()
    assert served == [0, 1]


def crowd(pool, threads, seconds):
    """Let a crowd ask again and again; return who was in time, late, and refused."""
    patience, hold = 0.2, 0.02
    in_time, late, refused = [], [], []
    end = time.monotonic() + seconds

    def ask():
        while (asked := time.monotonic()) < end:
            try:
                connection = pool.connect()
            except exc.TimeoutError:
                refused.append(time.monotonic() - asked)
                continue
            time.sleep(hold)
            connection.close()
            took = time.monotonic() - asked
            (in_time if took <= patience else late).append(took)

    tasks = [Task(ask) for _ in range(threads)]
    for task in tasks:
        task.result()
    return in_time, late, refused


@pytest.mark.difference
@pytest.mark.alone
@pytest.mark.quick("socket")
@ours
def test_crowd_of_three_times_the_load_is_served_in_time_as_by_queuepool(
    make_pool, dbapi
):
    options = {"pool_size": 2, "max_overflow": 0, "timeout": 0.2}
    theirs = QueuePool(dbapi.connect, **options)
    control, _late, _refused = crowd(theirs, 60, 1.0)
    theirs.dispose()
    pool = make_pool(**options)
    in_time, late, refused = crowd(pool, 60, 1.0)
    # In order of arrival it would be a twentieth.
    assert len(in_time) > 0.6 * len(control), (len(in_time), len(late), len(control))
    assert min(refused) >= 0.2  # nobody before his own time
    assert_whole(pool, dbapi, 2)


def steady_crowd(pool, timeout):
    """Play a crowd that order could serve in a quarter of its time, and a hiccup.

    Return what waits for it, and tells how many were served and refused once it should
    have recovered.
    """
    hold, callers, slots = 0.02, 36, 5
    served, refused, to_keep = [], [], [timeout * 1.2] * slots
    start = time.monotonic()
    settled = start + timeout * (1 + 1.2 + 5)
    end = settled + timeout * 6

    def ask():
        while time.monotonic() < end:
            try:
                connection = pool.connect()
            except exc.TimeoutError:
                refused.append(time.monotonic())
            else:
                late = time.monotonic() - start > timeout and to_keep
                time.sleep(to_keep.pop() if late else hold)
                connection.close()
                served.append(time.monotonic())
            time.sleep(hold)

    tasks = [Task(ask) for _ in range(callers)]

    def counts():
        for task in tasks:
            task.result()
        # The hiccup made others wait too long.
        assert any(at < settled for at in refused)
        return sum(at > settled for at in served), sum(at > settled for at in refused)

    return counts


@pytest.mark.difference
@pytest.mark.alone
@pytest.mark.quick("socket")
@ours
def test_steady_crowd_is_refused_after_a_hiccup_no_more_than_by_queuepool(
    make_pool, dbapi
):
    """Who was passed over and ran out of time is no sign that more come than can be."""
    options = {"pool_size": 5, "max_overflow": 0, "timeout": 0.4}
    theirs = QueuePool(dbapi.connect, **options)
    pool = make_pool(**options)
    # At the same time: whatever the machine does, it does to both.
    crowds = [steady_crowd(one, 0.4) for one in (theirs, pool)]
    (_served, control), (served, refused) = [counts() for counts in crowds]
    theirs.dispose()
    # While passing over went on for ever it was a fifth.
    assert refused <= control + served / 20, (refused, control, served)
    assert_whole(pool, dbapi, 5)


@pytest.mark.difference
@ours
def test_refusal_names_few_of_many_threads_and_looks_at_no_more(make_pool, monkeypatch):
    """Hundreds are refused a second where it matters: each must be cheap."""
    pool = make_pool(pool_size=1, max_overflow=0, timeout=0)
    held = pool.connect()
    looked_at = []
    native_id = threading.Thread.native_id

    class Counted:
        def __get__(self, thread, _class=None):
            looked_at.append(thread)
            return native_id.__get__(thread)

    go_on = threading.Event()
    others = [threading.Thread(target=go_on.wait, args=(20,)) for _ in range(50)]
    for other in others:
        other.start()
    monkeypatch.setattr(threading.Thread, "native_id", Counted())
    with pytest.raises(exc.TimeoutError, match="MainThread"):
        pool.connect()
    monkeypatch.undo()
    go_on.set()
    for other in others:
        other.join()
    held.close()
    assert len(looked_at) < 10
