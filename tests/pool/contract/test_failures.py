"""No failure of a creator, a listener or a driver loses a slot."""

from __future__ import annotations

import contextlib

import pytest
from sqlalchemy import event

from plugins.outages import try_now
from plugins.threads import Task, assert_whole, wait_for_waiters


class Abort(BaseException):
    """Something that is no Exception, like GreenletExit or a soft time limit."""


@pytest.fixture(params=[ValueError, KeyboardInterrupt, SystemExit, Abort])
def error(request):
    """Make an error to raise, and let go at the end of what it came through."""
    made = request.param("bug")
    yield made
    made.__traceback__ = None


STEPS_OF_THE_DRIVER = ["connect", "rollback", "close"]
LISTENERS = ["connect", "first_connect", "checkout", "reset"]
# Where QueuePool loses the slot: it gives a record back only after these listeners.
LISTENERS_BETWEEN = ["checkin", "close"]


@pytest.fixture
def pool(make_pool):
    return make_pool(pool_size=1, max_overflow=1, timeout=1.0)


def raising(error):
    def listener(*_arguments):
        raise error

    return listener


def use(pool, error):
    """Take both connections and give them back; swallow the error, and keep nothing."""
    taken = []
    for _ in range(2):
        with contextlib.suppress(type(error)):
            taken.append(pool.connect())
    while taken:
        with contextlib.suppress(type(error)):
            taken.pop().close()
    error.__traceback__ = None  # it keeps every frame that it came through


@pytest.mark.parametrize("step", STEPS_OF_THE_DRIVER)
@pytest.mark.parametrize("used_before", [False, True])
def test_failing_step_of_the_driver_loses_no_slot(
    pool, dbapi, step, error, used_before
):
    if used_before:
        pool.connect().close()
    dbapi.script[step] = error
    for _ in range(3):
        use(pool, error)
    assert_whole(pool, dbapi, 2)


@pytest.mark.parametrize("name", LISTENERS)
def test_failing_listener_loses_no_slot(pool, dbapi, name, error):
    listener = raising(error)
    event.listen(pool, name, listener)
    for _ in range(3):
        use(pool, error)
    event.remove(pool, name, listener)
    assert_whole(pool, dbapi, 2)


@pytest.mark.difference
@pytest.mark.parametrize("pool_class", ["poolproof"], indirect=True)
@pytest.mark.parametrize("name", LISTENERS_BETWEEN)
def test_difference_failing_listener_at_the_end_of_a_check_in_loses_no_slot(
    pool, dbapi, name, error
):
    """QueuePool never sees such a record again, and its slot is lost."""
    listener = raising(error)
    event.listen(pool, name, listener)
    for _ in range(3):
        use(pool, error)
    event.remove(pool, name, listener)
    assert_whole(pool, dbapi, 2)


@pytest.mark.difference
@pytest.mark.parametrize("pool_class", ["poolproof"], indirect=True)
@pytest.mark.parametrize("name", LISTENERS_BETWEEN)
def test_difference_error_that_somebody_keeps_keeps_no_slot(pool, dbapi, name, error):
    """An error reporter keeps the traceback, and with it the frames of the check-in."""
    listener = raising(error)
    event.listen(pool, name, listener)
    taken = [pool.connect(), pool.connect()]
    for one in taken:
        with contextlib.suppress(type(error)):
            one.close()
    del taken[:], one
    event.remove(pool, name, listener)
    assert error.__traceback__ is not None
    assert_whole(pool, dbapi, 2)


@pytest.mark.difference
@pytest.mark.parametrize("pool_class", ["poolproof"], indirect=True)
def test_difference_failing_listener_of_an_invalidation_loses_no_slot(
    pool, dbapi, error
):
    """The connection is bad already; its slot must not be."""
    listener = raising(error)
    event.listen(pool, "invalidate", listener)
    for _ in range(3):
        fairy = pool.connect()
        with contextlib.suppress(type(error)):
            fairy.invalidate()
        del fairy
        error.__traceback__ = None
    event.remove(pool, "invalidate", listener)
    assert_whole(pool, dbapi, 2)


def test_failing_connect_reaches_the_caller_unchanged(pool, dbapi, error):
    dbapi.script["connect"] = error
    with pytest.raises(type(error)) as caught:
        pool.connect()
    assert caught.value is error
    del caught
    assert_whole(pool, dbapi, 2)


@pytest.mark.parametrize("name", ["connect", "first_connect"])
def test_connection_whose_connect_listener_failed_is_closed(pool, dbapi, name):
    event.listen(pool, name, raising(ValueError("bug")))
    with pytest.raises(ValueError, match="bug"):
        pool.connect()
    assert dbapi.open == {}


def test_first_connect_listener_that_failed_is_asked_again(pool):
    answers = [ValueError("bug"), None]

    def listener(*_arguments):
        if (answer := answers.pop(0)) is not None:
            raise answer

    event.listen(pool, "first_connect", listener)
    with pytest.raises(ValueError, match="bug"):
        pool.connect()
    pool.connect().close()
    pool.connect().close()
    assert answers == []


def test_failing_reset_costs_the_connection_and_not_the_slot(pool, dbapi):
    event.listen(pool, "reset", raising(ValueError("bug")))
    pool.connect().close()
    assert dbapi.open == {}
    assert_whole(pool, dbapi, 2)


def test_failing_overflow_close_wakes_the_next_waiter(make_pool, dbapi):
    pool = make_pool(pool_size=1, max_overflow=0)
    held = pool.connect()
    waiters = [Task(lambda: pool.connect().close()) for _ in range(3)]
    wait_for_waiters(pool, 3)
    dbapi.script["rollback"] = dbapi.OperationalError("gone")
    dbapi.script["close"] = dbapi.OperationalError("gone as well")
    held.close()
    for waiter in waiters:
        waiter.result()
    assert_whole(pool, dbapi, 1)


def test_many_failures_in_many_threads_lose_no_slot(make_pool, dbapi):
    pool = make_pool(pool_size=2, max_overflow=1)
    refused = dbapi.OperationalError

    def every_third(connection):
        if connection.number % 3 == 0:
            raise refused(str(connection.number))

    dbapi.script["connect"] = every_third
    dbapi.script["rollback"] = lambda c: every_third(c) if c.number % 2 else None

    def work():
        for turn in range(40):
            with contextlib.suppress(refused):
                fairy = pool.connect()
                if turn % 4 == 0:
                    fairy.invalidate()
                fairy.close()

    for task in [Task(work) for _ in range(8)]:
        task.result()
    assert dbapi.peak <= 3
    try_now(pool)
    assert_whole(pool, dbapi, 3)
