"""Every public name in typed code. Read by mypy, never run."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from sqlalchemy import create_engine, exc, text
from typing_extensions import assert_type

import poolproof
import poolproof.auto
from poolproof.plugin import Plugin

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import PoolProxiedConnection

URL = "postgresql+psycopg2://app@db/app"


def version() -> str:
    return poolproof.__version__


def pool_in_an_engine() -> int:
    engine: Engine = create_engine(URL, poolclass=poolproof.Pool, pool_size=5)
    with engine.connect() as connection:
        connection.execute(text("select 1"))
    pool = engine.pool
    assert isinstance(pool, poolproof.Pool)
    assert_type(pool.size(), int)
    assert_type(pool.timeout(), float | None)
    assert_type(pool.checkedin(), int)
    assert_type(pool.checkedout(), int)
    assert_type(pool.overflow(), int)
    assert_type(pool.status(), str)
    assert_type(pool.stats(), poolproof.PoolStats)
    assert_type(pool.holders(), tuple[poolproof.Holder, ...])
    return pool.checkedout()


def bounded_block(engine: Engine) -> float:
    with poolproof.deadline(2.5) as block, engine.connect() as connection:
        connection.execute(text("select 1"))
        assert_type(block, poolproof.deadline)
        assert_type(block.seconds, float)
    return block.left


def held(engine: Engine) -> int:
    def lost(lease: poolproof.Lease) -> None:
        assert_type(lease.name, str)

    with poolproof.Lease(engine, "x", ttl=60, timeout=None, on_lost=lost) as lease:
        lease.check()
        lease.touch()
        with engine.begin() as connection:
            lease.guard(connection)
        assert_type(lease.lost.is_set(), bool)
        assert_type(lease.fence, int)
    other = poolproof.Lease(engine, "y", max_silence=5, table="a.b").acquire()
    assert_type(other, poolproof.Lease)
    other.release()
    return lease.fence


def alive(engine: Engine) -> int:
    with poolproof.Heartbeat(engine, "select $1", [1], stale_after=60) as heartbeat:
        heartbeat.beat()
    assert_type(heartbeat.stats().last_error, str | None)
    return heartbeat.stats().beats


def refusals(
    lost: poolproof.LeaseLost,
    late: poolproof.LeaseTimeout,
    forked: poolproof.LeaseForked,
    control: poolproof.ControlError,
) -> tuple[str, TimeoutError, int, str | None]:
    error: poolproof.LeaseError = lost
    return error.reason, late, forked.parent_pid, control.sqlstate


def passed(error: exc.DBAPIError) -> tuple[str, float, int | None]:
    cause = error.orig.__cause__ if error.orig else None
    assert isinstance(cause, poolproof.DeadlineExceeded)
    return cause.step, cause.limit, cause.backend_pid


def pool_by_hand(creator: Callable[[], DBAPIConnection]) -> PoolProxiedConnection:
    pool = poolproof.Pool(
        creator,
        pool_size=2,
        max_overflow=-1,
        timeout=None,
        use_lifo=True,
        recycle=60,
        pre_ping=True,
        reset_on_return="commit",
    )
    pool.dispose()
    return pool.recreate().connect()


def statistics(stats: poolproof.PoolStats) -> tuple[int, ...]:
    return (
        stats.size,
        stats.max_overflow,
        stats.idle,
        stats.in_use,
        stats.upkeep,
        stats.waiting,
        stats.checkouts_total,
        stats.waited_total,
        stats.connect_failures,
        stats.breaker_open,
        stats.generation,
    )


def holder(held: poolproof.Holder) -> tuple[str, int, float]:
    return held.thread, held.process_id, held.held_s


def guarded(engine: Engine, asynchronous: AsyncEngine) -> None:
    poolproof.guard(engine)
    poolproof.guard(asynchronous)


def listened() -> None:
    def told(event: poolproof.FaultEvent) -> None:
        assert_type(event.fault, poolproof.Fault)
        assert_type(event.verdict, poolproof.Verdict)
        assert_type(event.backend_pid, int | None)
        assert_type(event.process_id, int)
        assert_type(event.driver, str)
        assert_type(event.sqlstate, str | None)
        assert_type(event.exception, BaseException | None)
        assert_type(event.when, datetime)

    remove = poolproof.on_fault(told)
    assert_type(remove, Callable[[], None])
    remove()


def overruled() -> None:
    def decide(event: poolproof.FaultEvent) -> poolproof.Verdict | None:
        if event.sqlstate == "57P01":
            return dataclasses.replace(event.verdict, cost="connection")
        return None

    poolproof.on_fault(decide)()


def registered() -> None:
    remove = poolproof.faults.register(poolproof.Fault.POOLER, message="odyssey: ")
    assert_type(remove, Callable[[], None])
    remove()
    poolproof.faults.register(
        poolproof.Fault.INTERRUPTED,
        sqlstate="57",
        exception=TimeoutError,
        driver="psycopg",
        cause="a watchdog of ours",
    )()


def classified(error: Exception) -> bool:
    verdict = poolproof.classify(error)
    assert_type(verdict, poolproof.Verdict)
    assert_type(verdict.cost, Literal["nothing", "connection", "generation"])
    assert_type(verdict.retry, Literal["never", "reconnect", "whole_unit"])
    assert_type(verdict.outcome, Literal["not_done", "done", "unknown"])
    assert_type(verdict.cause, str)
    return verdict.fault is poolproof.Fault.CORRUPTION


def forked(error: poolproof.ConnectionForked) -> tuple[int, int]:
    operational: exc.OperationalError = error
    assert operational.connection_invalidated
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, poolproof.ConnectionForked)
    return error.parent_pid, error.child_pid


def refused(error: poolproof.BreakerOpen) -> str:
    operational: exc.OperationalError = error
    assert_type(error.pool, str)
    assert_type(error.failures, int)
    assert_type(error.failing_s, float)
    assert_type(error.probe_in_s, float)
    assert_type(error.last_error, str)
    return str(operational)


def exhausted(error: poolproof.PoolTimeout) -> str:
    timeout: exc.TimeoutError = error
    assert_type(error.pool, str)
    assert_type(error.size, int)
    assert_type(error.max_overflow, int)
    assert_type(error.in_use, int)
    assert_type(error.waiting, int)
    assert_type(error.waited, float)
    assert_type(error.holders, tuple[poolproof.Holder, ...])
    assert_type(error.reason, str)
    return str(timeout)


def in_a_child() -> None:
    poolproof.after_fork()


def by_environment() -> bool:
    if poolproof.auto.enabled():
        poolproof.auto.install()
    return poolproof.auto.enabled()


def by_plugin() -> type[Plugin]:
    return Plugin
