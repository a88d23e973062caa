"""Every public name in typed code. Read by mypy, never run.

Long, because it is one idea: each name once.
"""

from __future__ import annotations

import asyncio
import dataclasses
import pickle
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import create_engine, exc, text
from sqlalchemy.ext.asyncio import create_async_engine
from typing_extensions import assert_type

import poolproof
import poolproof.auto
import poolproof.driver
from poolproof.driver import aio
from poolproof.integrations import celery as poolproof_celery
from poolproof.integrations import flask as flask_integration
from poolproof.integrations import gunicorn as gunicorn_hooks
from poolproof.integrations import luigi as poolproof_luigi
from poolproof.integrations import starlette as poolproof_starlette
from poolproof.plugin import Plugin

if TYPE_CHECKING:
    from flask import Flask
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
    from sqlalchemy.orm import Session, scoped_session
    from sqlalchemy.pool import PoolProxiedConnection
    from starlette.applications import Starlette

URL = "postgresql+psycopg2://app@db/app"


def async_pool(engine: AsyncEngine) -> poolproof.PoolStats:
    made = create_async_engine(URL, poolclass=poolproof.AsyncPool, pool_size=3)
    assert isinstance(made.pool, poolproof.AsyncPool)
    return made.pool.stats()


async def bounded(engine: AsyncEngine) -> None:
    async with poolproof.deadline(2) as limit:
        assert_type(limit, poolproof.deadline)


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
    pool.resize(5)
    pool.resize(5, 2)
    assert_type(pool.drain(), int)
    assert_type(pool.warm(2), int)
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
        assert_type(lease.stats().renewals, int)
    other = poolproof.Lease(engine, "y", max_silence=5, table="a.b").acquire()
    assert_type(other, poolproof.Lease)
    other.release()
    return lease.fence


async def held_in_a_loop(engine: AsyncEngine, session: AsyncSession) -> int:
    def lost(lease: poolproof.AsyncLease) -> None:
        assert_type(lease.name, str)

    async def lost_later(lease: poolproof.AsyncLease) -> None:
        await lease.release()

    async with poolproof.AsyncLease(engine, "x", ttl=60, on_lost=lost) as lease:
        lease.check()
        lease.touch()
        async with engine.begin() as connection:
            await lease.guard(connection)
        await lease.guard(session)
        assert_type(lease.lost, asyncio.Event)
        assert_type(lease.fence, int)
        assert_type(lease.stats().renewals, int)
    other = await poolproof.AsyncLease(engine, "y", on_lost=lost_later).acquire()
    assert_type(other, poolproof.AsyncLease)
    await other.release()
    async with poolproof.AsyncHeartbeat(engine, "select $1", [1]) as heartbeat:
        heartbeat.beat()
    assert_type(await heartbeat.start(), poolproof.AsyncHeartbeat)
    return heartbeat.stats().beats


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


def refused_at_once(error: poolproof.TooManyWaiting) -> tuple[int, int]:
    late: poolproof.PoolTimeout = error
    return late.waiting, error.max_waiting


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
        stats.maintenance,
        stats.waiting,
        stats.newest_first,
        stats.checkouts_total,
        stats.waited_total,
        stats.connect_failures,
        stats.breaker_open,
        stats.generation,
    )


def journals() -> str:
    events = poolproof.journal()
    assert_type(events, tuple[poolproof.JournalEvent, ...])
    poolproof.write_journal()
    poolproof.write_journal_at(12)
    return f"{events[0].kind} {events[0].cause} {events[0].evidence} {events[0].pool}"


def snapshots(engine: Engine) -> float | None:
    with poolproof.scope("checkout-page") as named:
        assert_type(named, poolproof.scope)
        assert_type(named.name, str)
    assert_type(poolproof.snapshot(), poolproof.ProcessSnapshot)
    seen = poolproof.snapshot(engine)
    assert_type(seen, poolproof.PoolSnapshot)
    assert_type(poolproof.snapshot(engine.pool), poolproof.PoolSnapshot)
    return seen.wait.p99_s


@poolproof.scope("nightly-report")
def scoped(number: int) -> str:
    return str(number)


def scoped_result() -> str:
    return scoped(1)


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


def nested(error: poolproof.NestedCheckout) -> int:
    timeout: poolproof.PoolTimeout = error
    assert_type(timeout.in_use, int)
    assert_type(error.callers, int)
    assert_type(error.held, int)
    assert_type(error.most, int)
    return error.enough


def in_a_child() -> None:
    poolproof.after_fork()


def by_environment() -> bool:
    if poolproof.auto.enabled():
        poolproof.auto.install()
    return poolproof.auto.enabled()


def by_plugin() -> type[Plugin]:
    return Plugin


def repeated(engine: Engine, db: object) -> int:
    def unit(connection: Connection) -> int:
        return int(connection.closed)

    assert_type(poolproof.run_transaction(engine, unit), int)
    poolproof.run_transaction(
        db,
        unit,
        attempts=3,
        deadline=2.5,
        backoff=poolproof.Backoff(first=0.1, most=1),
        isolation_level="SERIALIZABLE",
        verify_commit=True,
        idempotent=False,
        also=[poolproof.Fault.LOCK_TIMEOUT],
    )

    @poolproof.retry(on=(poolproof.Fault.DEADLOCK, OSError), attempts=2, deadline=1)
    def again(n: int) -> str:
        return str(n)

    assert_type(again(1), str)
    for attempt in poolproof.attempts(on=OSError, unit="a block"):
        with attempt:
            return attempt.number
    return 0


async def repeated_async(engine: AsyncEngine) -> int:
    async def unit(connection: AsyncConnection) -> int:
        return connection.sync_connection is not None

    return await poolproof.run_transaction_async(engine, unit)


def attempted() -> None:
    def told(event: poolproof.AttemptEvent) -> None:
        assert_type(event.unit, str)
        assert_type(event.attempt, int)
        assert_type(event.attempts, int)
        assert_type(event.verdict, poolproof.Verdict | None)
        assert_type(event.error, BaseException | None)
        assert_type(event.elapsed, float)
        assert_type(event.sleep, float | None)

    assert_type(poolproof.on_attempt(told), Callable[[], None])


def unknown(error: poolproof.CommitOutcomeUnknown) -> int | None:
    general: exc.SQLAlchemyError = error
    assert_type(error.unit, str)
    assert_type(error.elapsed, float)
    return error.xid if general is error else None


def in_flask(app: Flask, engine: Engine, session: scoped_session[Session]) -> None:
    flask_integration.init_app(app)
    flask_integration.init_app(app, engine, pool_size=5, answer_503=True)
    flask_integration.init_app(app, [engine, session], retry_after=2)
    flask_integration.add_metrics(app, "/metrics")


def in_starlette(app: Starlette, engine: AsyncEngine, other: Engine) -> None:
    poolproof_starlette.init_app(app)
    poolproof_starlette.init_app(app, engine, pool_size=5, answer_503=True, warm=2)
    poolproof_starlette.init_app(app, [engine, other], dispose_timeout=2)
    poolproof_starlette.add_metrics(app, "/metrics")


def in_gunicorn(server: Any, worker: Any) -> None:
    gunicorn_hooks.when_ready(server)
    gunicorn_hooks.post_fork(server, worker)
    gunicorn_hooks.post_worker_init(worker)
    gunicorn_hooks.worker_abort(worker)
    gunicorn_hooks.worker_exit(server, worker)


def pipeline(engine: Engine, connection: Connection, session: Session) -> bool:
    poolproof_luigi.install(engine)
    target = poolproof_luigi.PoolproofTarget(
        engine, "load-1", "orders", marker_table="marker", within_s=5.0
    )
    target.touch()
    target.touch(connection)
    target.touch(session)
    return target.exists()


def stopped(engine: Engine) -> tuple[str, float]:
    flag = poolproof_luigi.StopFlag(
        engine,
        text("select :stop"),
        {"stop": True},
        within_s=2,
        every_s=0,
        unreachable_s=None,
    )
    assert_type(flag.is_set(), bool)
    assert_type(flag.reason, Literal["asked", "set", "unreachable"] | None)
    assert_type(flag.silent_s, float)
    flag.set()
    try:
        flag.check()
    except poolproof_luigi.StopRequested as wish:
        return wish.reason, wish.silent_s
    return "", 0.0


def celery(app: Any, engine: Engine, session: scoped_session[Session]) -> None:
    poolproof_celery.install(app)
    poolproof_celery.install(app, engine=engine)
    poolproof_celery.install(app, session=session, engine=[engine], naming="worker")
    poolproof_celery.install(app, naming=None)
    assert_type(poolproof_celery.install(app, naming="task"), None)


def a_copy_of_the_native_driver(opened: poolproof.driver.Connection) -> bytes:
    cursor = opened.cursor()
    with cursor.copy("copy t from stdin") as copy:
        assert_type(copy, poolproof.driver.Copy)
        copy.set_types(["int4", 25])
        copy.write(b"1\tone\n")
        copy.write_row((2, "two"))
        copy.write_rows((n, str(n)) for n in range(3))
    with cursor.copy("copy t to stdout") as copy:
        assert_type(copy.read_row(), tuple[Any, ...] | None)
        for piece in copy:
            assert_type(piece, bytes)
        return copy.read()


async def a_connection_of_the_native_driver_in_a_loop() -> None:
    async with await aio.connect("postgresql://app@db/app", timeout=2.5) as opened:
        assert_type(opened, aio.AsyncConnection)
        cursor = await opened.execute("select %s", [1])
        assert_type(cursor, aio.AsyncCursor)
        assert_type(await cursor.fetchone(), tuple[Any, ...] | None)
        async for row in cursor:
            assert_type(row, tuple[Any, ...])
        async with cursor.copy("copy t to stdout") as copy:
            assert_type(copy, aio.AsyncCopy)
            assert_type(await copy.read(), bytes)
        async with opened.pipeline() as pipeline:
            assert_type(pipeline, aio.AsyncPipeline)
            await pipeline.sync()
        async for notify in opened.notifies(timeout=1):
            assert_type(notify.payload, str)


def a_connection_of_the_native_driver() -> list[tuple[Any, ...]]:
    with poolproof.driver.connect("postgresql://app@db/app", timeout=2.5) as opened:
        assert_type(opened, poolproof.driver.Connection)
        opened.isolation_level = "SERIALIZABLE"
        assert_type(opened.prepare_threshold, int | None)
        opened.prepare_threshold = None
        assert_type(opened.info, poolproof.driver.ConnectionInfo)
        cursor = opened.execute("select %s", [1])
        assert_type(cursor, poolproof.driver.Cursor)
        assert_type(cursor.fetchone(), tuple[Any, ...] | None)
        if (info := opened.type_info("hstore")) is not None:
            assert_type(info, poolproof.driver.TypeInfo)
            poolproof.driver.register_type(info, opened)
        for notify in opened.notifies(timeout=1):
            assert_type(notify.payload, str)
        with opened.pipeline() as pipeline:
            assert_type(pipeline, poolproof.driver.Pipeline)
            pipeline.sync()
        try:
            opened.commit()
        except poolproof.driver.OperationalError as error:
            assert_type(error.outcome, Literal["not_done", "done", "unknown"] | None)
            assert_type(error.sqlstate, str | None)
        return cursor.fetchall()
