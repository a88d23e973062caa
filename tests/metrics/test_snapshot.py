"""What a snapshot counts, against what was done."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import threading

import pytest
from sqlalchemy import create_engine, exc, text
from sqlalchemy.pool import QueuePool

import poolproof
from plugins.dbapi import OperationalError
from plugins.processes import run_in_fork
from plugins.threads import Task, eventually, wait_for_waiters
from poolproof.metrics.table import Histogram, read
from poolproof.pool import family


def test_checkouts_are_counted_by_whether_they_had_to_wait(make_pool):
    pool = make_pool(pool_size=1, max_overflow=0)
    first = pool.connect()
    task = Task(lambda: pool.connect().close())
    wait_for_waiters(pool, 1)
    waiting = poolproof.snapshot(pool)
    assert waiting.waiting == 1
    assert waiting.oldest_wait_s is not None
    first.close()
    task.result()
    pool.connect().close()
    seen = poolproof.snapshot(pool)
    assert seen.checkouts == {False: 2, True: 1}
    assert seen.wait.count == 3
    assert seen.wait.p50_s == 0
    assert seen.wait.max_s > 0
    assert seen.oldest_wait_s is None


def test_times_are_those_that_a_caller_measures(make_pool):
    """A control in the same window: the histograms may not say less or much more."""
    clock = threading.Event()
    pool = make_pool(pool_size=1, max_overflow=0)
    pool.connect().close()
    before = poolproof.snapshot(pool).hold
    connection = pool.connect()
    clock.wait(0.05)
    held = poolproof.snapshot(pool).holders[0].held_s
    connection.close()
    hold = poolproof.snapshot(pool).hold
    assert hold.count == before.count + 1
    assert hold.max_s >= held >= 0.05
    assert hold.p99_s == hold.max_s
    assert hold.sum_s == pytest.approx(before.sum_s + hold.max_s, abs=1e-6)


def test_connecting_is_counted_by_outcome_and_only_successes_are_timed(
    make_pool, dbapi
):
    pool = make_pool(pool_size=2)
    dbapi.script["connect"] = OperationalError("refused")
    with pytest.raises(OperationalError):
        pool.connect()
    dbapi.script.clear()
    pool.connect().close()
    seen = poolproof.snapshot(pool)
    assert seen.connects == {"failed": 1, "ok": 1}
    assert seen.connect.count == 1
    assert seen.checkouts == {False: 1, True: 0}  # the failed one was lent nothing


def test_a_caller_whose_time_is_over_is_counted_by_what_it_was_spent_on(make_pool):
    pool = make_pool(pool_size=1, max_overflow=0, timeout=0.01)
    held = pool.connect()
    with pytest.raises(poolproof.PoolTimeout):
        pool.connect()
    with poolproof.deadline(0.005), pytest.raises(poolproof.PoolTimeout):
        pool.connect()
    held.close()
    assert poolproof.snapshot(pool).timeouts == {"slot": 1, "deadline": 1}


def test_an_open_breaker_is_counted_too(make_pool, dbapi):
    pool = make_pool(pool_size=1, fail_fast_after=1)
    dbapi.script["connect"] = OperationalError("refused")
    with pytest.raises(OperationalError):
        pool.connect()
    with pytest.raises(poolproof.BreakerOpen):
        pool.connect()
    seen = poolproof.snapshot(pool)
    assert seen.breaker_open
    assert seen.connect_failures == 1
    assert seen.timeouts == {"breaker": 1}


def test_what_was_discarded_stays_counted_after_a_dispose(stub_engine):
    engine = stub_engine(pool_size=1)
    with engine.connect() as connection:
        connection.invalidate()
    engine.dispose()
    with engine.connect():
        pass
    seen = poolproof.snapshot(engine)
    assert seen.discarded == {"invalidated": 1}
    assert seen.checkouts == {False: 2, True: 0}
    assert engine.pool.stats().checkouts_total == 1  # as ever: of this pool


def test_no_number_of_a_process_falls_when_an_engine_is_dropped(stub_engine):
    def mine():
        found = [
            one for one in poolproof.snapshot().pools if one.name == "dropped@nowhere"
        ]
        return found[0].checkouts[False] if found else None

    engines = [stub_engine(pool_logging_name="dropped@nowhere") for _ in range(2)]
    for engine in engines:
        engine.pool.connect().close()
    assert mine() == 2
    # Nobody else has it: the fixtures keep engines, so a pool of its own is dropped.
    own = poolproof.Pool(engines[0].pool._creator, logging_name="dropped@nowhere")
    own.connect().close()
    assert mine() == 3
    own.dispose()
    del own
    gc.collect()
    assert mine() == 3
    assert mine() == 3


def test_pools_of_one_name_are_one(stub_engine):
    for _ in range(2):
        stub_engine(
            pool_logging_name="twins", pool_size=3, max_overflow=1
        ).pool.connect().close()
    (twins,) = [one for one in poolproof.snapshot().pools if one.name == "twins"]
    assert (twins.size, twins.max_overflow, twins.idle) == (6, 2, 2)
    assert twins.checkouts[False] == 2


def test_who_holds_is_named_with_thread_scope_and_backend(make_engine, pg_url):
    engine = make_engine(pg_url("psycopg2"))
    with poolproof.scope("checkout-page"), engine.connect() as connection:
        pid = connection.scalar(text("select pg_backend_pid()"))
        (holder,) = poolproof.snapshot(engine).holders
    assert holder.thread == threading.current_thread().name
    assert holder.scope == "checkout-page"
    assert holder.backend_pid == pid
    assert holder.is_busy is False
    assert poolproof.snapshot(engine).holders == ()


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_a_statement_under_way_is_seen_from_outside(make_engine, pg_url, driver):
    engine = make_engine(pg_url(driver))
    connected = threading.Event()

    def sleep():
        with engine.connect() as connection:
            connected.set()
            connection.execute(text("select pg_sleep(0.5)"))

    task = Task(sleep)
    connected.wait(20)
    eventually(lambda: [one.is_busy for one in poolproof.snapshot(engine).holders][:1])
    eventually(lambda: poolproof.snapshot(engine).holders[0].is_busy)
    task.result()


def test_faults_and_units_of_work_are_counted(make_engine, pg_url):
    engine = make_engine(pg_url("psycopg2"), pool_size=1)
    calls = []

    def unit(connection):
        calls.append(1)
        if len(calls) == 1:
            pid = connection.scalar(text("select pg_backend_pid()"))
            with engine.pool._creator() as other:
                other.cursor().execute(f"select pg_terminate_backend({pid}, 5000)")
            other.close()
        return connection.scalar(text("select 1"))

    poolproof.run_transaction(engine, unit)
    with pytest.raises(exc.ProgrammingError):
        poolproof.run_transaction(
            engine, lambda connection: connection.execute(text("nonsense"))
        )
    seen = poolproof.snapshot(engine)
    (costs,) = seen.faults.values()
    assert sum(costs.values()) == 1
    assert seen.transactions == {"done": 1, "not_done": 1}
    assert seen.retries == {"done": 1}


def test_faults_of_other_pools_are_counted_under_their_class(pg_url):
    engine = create_engine(pg_url("psycopg2"), poolclass=QueuePool)
    poolproof.guard(engine)
    with pytest.raises(exc.DBAPIError), engine.connect() as connection:
        connection.execute(
            text("select pg_terminate_backend(pg_backend_pid()), pg_sleep(5)")
        )
    engine.dispose()
    others = {one.name: one.faults for one in poolproof.snapshot().others}
    assert others["QueuePool"]


def test_a_ping_is_counted_and_timed(make_engine, pg_url):
    engine = make_engine(pg_url("psycopg2"), pool_pre_ping="always")
    for _ in range(2):
        engine.connect().close()
    seen = poolproof.snapshot(engine)
    assert seen.pings == {"ok": 1}
    assert seen.ping.count == 1
    assert 0 < seen.ping.max_s <= seen.hold.max_s + seen.ping.max_s


def test_a_deadline_is_counted_by_its_step(make_engine, pg_url):
    engine = make_engine(pg_url("psycopg2"))
    with (
        pytest.raises(exc.DBAPIError),
        engine.connect() as connection,
        poolproof.deadline(0.1),
    ):
        connection.execute(text("select pg_sleep(20)"))
    assert poolproof.snapshot(engine).deadlines == {"deadline": 1}


def test_where_it_leads_to_is_told_without_who_may(pg_url, make_engine):
    url = pg_url("psycopg2")
    seen = poolproof.snapshot(make_engine(url))
    assert (seen.database, seen.host, seen.port) == (url.database, url.host, url.port)
    assert seen.driver == "psycopg2"
    shown = json.dumps(dataclasses.asdict(seen), default=str)
    assert "user" not in shown
    assert "password" not in shown


def test_a_child_begins_with_nothing(stub_engine):
    engine = stub_engine(pool_size=1)
    with poolproof.scope("of the parent"), engine.connect():
        pass
    held = engine.connect()

    def child():
        before = poolproof.snapshot(engine)
        with poolproof.scope("of the child"):
            engine.pool.connect().close()
        after = poolproof.snapshot(engine)
        process = poolproof.snapshot()
        return (
            sum(before.checkouts.values()),
            before.hold.count,
            before.used,
            after.checkouts[False],
            sorted(after.hold_by_scope),
            process.generation,
            process.severed_sockets >= 1,
            process.process_id == os.getpid(),
        )

    report = run_in_fork(child)
    assert report.assert_silent().result == (
        *(0, 0, 0, 1),
        ["of the child"],
        *(poolproof.snapshot().generation + 1, True, True),
    )
    held.close()
    assert poolproof.snapshot(engine).checkouts[False] == 2


@pytest.mark.parametrize("wrong", [1, "engine", object()])
def test_what_is_no_engine_is_refused_in_one_sentence(wrong):
    with pytest.raises(TypeError, match=r"snapshot needs an engine"):
        poolproof.snapshot(wrong)


def test_an_engine_with_another_pool_is_refused():
    engine = create_engine("sqlite://", poolclass=QueuePool)
    with pytest.raises(TypeError, match="not QueuePool"):
        poolproof.snapshot(engine)


def _use_once(dbapi, name, *, looks=False):
    """Make a pool, use it, and let nobody have it any more."""
    pool = poolproof.Pool(dbapi.connect, logging_name=name)
    pool.connect().close()
    if looks:
        poolproof.snapshot()
    pool.dispose()
    del pool
    gc.collect()


def _shown(metric, name):
    """What a metric says of a pool, of all its other labels together."""
    values = read(poolproof.snapshot())[metric].items()
    return sum(
        value.count if isinstance(value, Histogram) else value
        for labels, value in values
        if labels[0] == name
    )


@pytest.mark.parametrize("looks", [True, False], ids=["looked at", "never looked at"])
def test_what_a_pool_has_counted_is_shown_when_it_is_gone(dbapi, looks):
    name = f"gone-{looks}"
    _use_once(dbapi, name, looks=looks)
    seen = poolproof.snapshot()
    assert name not in {one.name for one in seen.pools}
    (gone,) = (one for one in seen.gone if one.name == name)
    assert gone.checkouts == {False: 1, True: 0}
    assert gone.connects == {"ok": 1}
    assert gone.connect.count == gone.hold.count == 1
    for metric in ("checkouts_total", "connects_total", "wait_seconds", "hold_seconds"):
        assert _shown(metric, name) == 1, metric
    assert not _shown("connections", name)
    _use_once(dbapi, name)
    assert _shown("checkouts_total", name) == _shown("connect_seconds", name) == 2


def test_what_is_gone_is_shown_under_its_name_when_another_has_it(dbapi):
    _use_once(dbapi, "returns")
    pool = poolproof.Pool(dbapi.connect, logging_name="returns")
    pool.connect().close()
    assert _shown("checkouts_total", "returns") == 2
    assert "returns" not in {one.name for one in poolproof.snapshot().gone}


def test_names_that_are_gone_are_kept_and_not_without_end(dbapi, monkeypatch):
    """An engine for each tenant, each dropped again."""
    monkeypatch.setattr(family, "_seen", family.Seen())
    monkeypatch.setattr(family, "GONE_MOST", 3)
    for number in range(6):
        _use_once(dbapi, f"tenant-{number}", looks=number % 2 == 0)
    gone = {one.name: one.checkouts[False] for one in poolproof.snapshot().gone}
    assert gone == {"tenant-0": 1, "tenant-1": 1, "tenant-2": 1, "other": 3}


def test_pools_that_nobody_looks_at_are_not_kept_without_end(dbapi, monkeypatch):
    monkeypatch.setattr(family, "_seen", family.Seen())
    for number in range(300):
        _use_once(dbapi, f"unseen-{number % 5}")
    assert len(family._seen.totals) < 150
    assert sum(_shown("checkouts_total", f"unseen-{n}") for n in range(5)) == 300
