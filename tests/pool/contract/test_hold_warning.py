"""Who holds a connection for long is logged, with the stack of the checkout."""

from __future__ import annotations

import os
import re
import threading
import time
import weakref

import pytest

import poolproof
from plugins.threads import Task, eventually

pytestmark = pytest.mark.difference


@pytest.fixture
def pool_class():
    return poolproof.Pool


def warnings(caplog):
    return [text for text in caplog.messages if " is held by " in text]


def take_for_the_report(pool):
    return pool.connect()


def test_difference_long_hold_is_logged_once_with_who_and_where(make_pool, caplog):
    pool = make_pool(hold_warning=0.1)
    fairy = take_for_the_report(pool)
    eventually(lambda: warnings(caplog))
    time.sleep(0.3)
    (text,) = warnings(caplog)
    holder = f"{threading.current_thread().name} of process {os.getpid()}"
    assert re.search(rf"{holder} for \d+\.", text)
    assert "in take_for_the_report\n    return pool.connect()" in text
    assert __file__ in text
    assert text.endswith("return pool.connect()")  # no frame of the pool's own
    (record,) = [r for r in caplog.records if " is held by " in r.getMessage()]
    assert record.levelname == "WARNING"
    assert record.name.startswith("sqlalchemy.pool.poolproof.Pool")
    fairy.close()


def test_difference_engine_tells_the_line_of_the_application(stub_engine, caplog):
    engine = stub_engine(hold_warning=0.05)
    with engine.connect():
        eventually(lambda: warnings(caplog))
    assert "with engine.connect():" in warnings(caplog)[0]


def test_difference_each_checkout_is_warned_of_anew(make_pool, caplog):
    pool = make_pool(hold_warning=0.05)
    for count in (1, 2):
        with pool.connect():
            eventually(lambda count=count: len(warnings(caplog)) == count)


@pytest.mark.quick("socket")
def test_difference_those_that_return_in_time_are_not_mentioned(make_pool, caplog):
    pool = make_pool(hold_warning=1.5)
    for _ in range(10):
        with pool.connect():
            time.sleep(0.01)
    time.sleep(1.6)
    assert not warnings(caplog)


def test_difference_thread_is_named(make_pool, caplog):
    pool = make_pool(hold_warning=0.05)

    def hold():
        threading.current_thread().name = "the-culprit"
        with pool.connect():
            eventually(lambda: warnings(caplog))

    Task(hold).result()
    assert "held by the-culprit of process" in warnings(caplog)[0]


def test_difference_warning_comes_in_time_beside_later_dates(make_pool, caplog):
    pool = make_pool(hold_warning=0.1, min_idle=1, max_idle=600)
    pool.connect().close()
    time.sleep(0.05)
    began = time.monotonic()
    with pool.connect():
        eventually(lambda: warnings(caplog))
    assert time.monotonic() - began < 10  # not the 600 s after which it looks anyway


def test_difference_entry_forgets_the_checkout_at_its_return(make_pool):
    pool = make_pool(hold_warning=600.0)
    fairy = pool.connect()
    entry = fairy._connection_record
    assert entry.held is not None
    fairy.close()
    assert entry.held is None


def test_difference_callers_variables_are_not_kept_alive(make_pool):
    class Thing:
        pass

    pool = make_pool(hold_warning=600.0)

    def take():
        thing = Thing()
        return pool.connect(), weakref.ref(thing)

    fairy, reference = take()
    assert reference() is None
    fairy.close()


def test_difference_connection_left_to_the_collector_comes_back(make_pool, dbapi):
    pool = make_pool(pool_size=1, max_overflow=0, timeout=0, hold_warning=600.0)
    pool.connect()
    pool.connect().close()
    assert dbapi.connects == 1
