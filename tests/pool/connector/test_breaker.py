"""The breaker: after so many failures callers are refused until an attempt succeeds."""

from __future__ import annotations

import pickle
import threading
import time

import pytest
from sqlalchemy import exc

import poolproof
from plugins.dbapi import OperationalError
from plugins.outages import fail_once, queued
from plugins.outages import postpone as set_due
from plugins.processes import run_in_fork
from plugins.threads import Task, eventually


@pytest.fixture
def dbapi(dbapi):
    dbapi.script["connect"] = OperationalError("the server is down\nentirely")
    return dbapi


@pytest.fixture
def make_pool(make_pool):
    """Make pools with a breaker."""
    defaults = {"fail_fast_after": 3, "checkout_timeout": 20, "pool_size": 10}
    return lambda **parameters: make_pool(**{**defaults, **parameters})


def fail(pool, times=1):
    for _ in range(times):
        set_due(pool, 0)
        with pytest.raises(OperationalError):
            pool.connect()


def attempts(dbapi):
    return dbapi.count("connect")


def test_breaker_is_off_by_default(make_pool):
    pool = make_pool(fail_fast_after=None)
    fail(pool, 6)
    assert not pool.stats().breaker_open


def test_it_opens_after_so_many_failures_in_a_row(make_pool, dbapi):
    pool = make_pool()
    fail(pool, 2)
    assert not pool.stats().breaker_open
    fail(pool)
    assert pool.stats().breaker_open
    assert pool.stats().connect_failures == 3
    set_due(pool, 60)
    began = time.monotonic()
    with pytest.raises(poolproof.BreakerOpen) as caught:
        pool.connect()
    assert time.monotonic() - began < 10  # and not 20, as others wait
    assert attempts(dbapi) == 3
    error = caught.value
    assert error.failures == 3
    assert 40 < error.probe_in_s <= 60
    assert 0 < error.failing_s < 20
    assert error.last_error == "the server is down"
    assert isinstance(error.__cause__, OperationalError)
    assert pool.checkedout() == 0


def test_success_in_between_begins_the_count_anew(make_pool, dbapi):
    pool = make_pool()
    fail(pool, 2)
    down = dbapi.script.pop("connect")
    set_due(pool, 0)
    one = pool.connect()
    dbapi.script["connect"] = down
    fail(pool, 2)
    assert not pool.stats().breaker_open
    one.close()


def test_error_says_what_happened_and_is_picklable(make_pool):
    pool = make_pool(logging_name="shop")
    fail(pool, 3)
    set_due(pool, 60)
    with pytest.raises(poolproof.BreakerOpen) as caught:
        pool.connect()
    error = caught.value
    assert isinstance(error, exc.OperationalError)
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    due = f"due in {error.probe_in_s:.2f} s"
    for words in ("'shop'", "3 failed in a row", due, "the server is down"):
        assert words in str(error)
    assert (again.pool, again.failures) == ("shop", 3)
    assert again.probe_in_s == error.probe_in_s
    assert again.last_error == error.last_error


def test_work_that_met_it_may_be_repeated_later(make_pool):
    pool = make_pool()
    fail(pool, 3)
    set_due(pool, 60)
    with pytest.raises(poolproof.BreakerOpen) as caught:
        pool.connect()
    verdict = poolproof.classify(caught.value)
    assert (verdict.cost, verdict.retry) == ("nothing", "reconnect")
    assert verdict.outcome == "not_done"


def test_idle_connections_are_lent_while_it_is_open(make_pool, dbapi):
    pool = make_pool()
    down = dbapi.script.pop("connect")
    kept = pool.connect()
    dbapi.script["connect"] = down
    fail(pool, 3)
    set_due(pool, 60)
    kept.close()
    with pool.connect(), pytest.raises(poolproof.BreakerOpen):
        pool.connect()
    pool.connect().close()


def test_one_caller_is_let_through_when_an_attempt_is_due(make_pool, dbapi):
    pool = make_pool()
    fail(pool, 3)
    set_due(pool, 0)
    entered, hold = threading.Event(), threading.Event()

    def probe(_connection):
        entered.set()
        assert hold.wait(10)
        raise OperationalError("still down")

    dbapi.script["connect"] = probe
    one = Task(pool.connect)
    assert entered.wait(10)
    for _ in range(5):
        with pytest.raises(poolproof.BreakerOpen) as caught:
            pool.connect()
        assert caught.value.probe_in_s == 0
        assert "due or under way" in str(caught.value)
    hold.set()
    with pytest.raises(OperationalError, match="still down"):
        one.result()
    assert attempts(dbapi) == 4
    set_due(pool, 60)
    with pytest.raises(poolproof.BreakerOpen) as caught:
        pool.connect()
    assert caught.value.failures == 4
    assert str(caught.value.__cause__) == "still down"


def test_success_of_the_probe_closes_it(make_pool, dbapi):
    pool = make_pool()
    fail(pool, 3)
    set_due(pool, 0)
    dbapi.script.clear()
    taken = [pool.connect() for _ in range(10)]
    assert not pool.stats().breaker_open
    assert pool.stats().connect_failures == 0
    for one in taken:
        one.close()


def test_those_in_the_queue_are_refused_when_it_opens(make_pool, dbapi):
    pool = make_pool(fail_fast_after=2, connect_retry_for=20)
    fail_once(pool)
    set_due(pool, 60)
    tasks = [Task(pool.connect) for _ in range(5)]
    eventually(lambda: queued(pool) == 5)
    set_due(pool, 0)  # the one who tries fails; then it is open
    kinds = []
    for task in tasks:
        with pytest.raises((OperationalError, poolproof.BreakerOpen)) as caught:
            task.result(2)
        kinds.append(type(caught.value).__name__)
    assert kinds.count("OperationalError") == 1
    assert kinds.count("BreakerOpen") == 4
    assert pool.checkedout() == 0


@pytest.mark.fork
def test_child_begins_with_it_closed(make_pool, dbapi):
    pool = make_pool()
    fail(pool, 3)
    set_due(pool, 60)

    def child():
        dbapi.script.clear()
        pool.connect().close()
        return pool.stats().breaker_open

    assert run_in_fork(child).assert_silent().result is False
    assert pool.stats().breaker_open


def test_engine_raises_it_as_it_is(dbapi):
    from sqlalchemy import create_engine

    engine = create_engine(
        "postgresql+psycopg2://127.0.0.1/stub",
        module=dbapi,
        _initialize=False,
        poolclass=poolproof.Pool,
        fail_fast_after=1,
    )
    with pytest.raises(exc.OperationalError, match="the server is down"):
        engine.connect()
    set_due(engine.pool, 60)
    with pytest.raises(poolproof.BreakerOpen):
        engine.connect()
    engine.dispose()
