"""The native driver beside psycopg2, psycopg, pg8000 and asyncpg."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt  # noqa: TC003 - the mapping reads it
import decimal  # noqa: TC003 - as this
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from _copying import TABLE, copied, copied_by_asyncpg, values
from _delay import Delay
from _rounds import Number, Story, alternate, clock, pin
from _server import server
from _worker import Worker
from sqlalchemy import orm
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import QueuePool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.engine import URL

METHOD = """
Each driver in a process of its own, over TCP on the loopback address, without TLS. A
ratio is the peer's time divided by ours, so more is better. Statements of the drivers
run inside of an open transaction, whose BEGIN is not measured, with the embedded
PostgreSQL on the client's core, so that what a driver makes the server do counts in
full. Those of SQLAlchemy are a whole checkout each (BEGIN, select, ROLLBACK), on the
engine that a user gets (QueuePool for the others, poolproof.Pool for ours), with the
server on another core, as in a service. Every driver is as it comes: psycopg, asyncpg
and ours prepare what they are asked often. The delayed network is a proxy on another
core that keeps each byte for 0.4 ms, each way. executemany inserts 10,000 rows of five
columns into a temporary table that is emptied before. COPY takes 100,000 such rows,
as the server's text from and to memory (psycopg2 and ours: copy_expert; psycopg: write
and iteration; asyncpg: copy_to_table and copy_from_table), and as values (write_row of
psycopg's, write_rows of ours, asyncpg's copy_records_to_table; rows()). Slices
alternate between the drivers; the median slice is the round's time.
"""
OURS = "poolproof"
PEERS = ("psycopg2", "psycopg", "pg8000", "asyncpg")
LOOPED = (OURS, "psycopg", "asyncpg")
DELAY_S = 0.0004
ROWS = 10_000
OBJECTS = 1_000
COPIED = 100_000
PINGED = "psycopg2 with pre-ping"
# No slower than the fastest.
EVEN: dict[str, float] = {"psycopg2": 1, "psycopg": 1, "asyncpg": 1}


class Work(NamedTuple):
    """What is measured.

    Attributes:
        title: What it is called.
        slices: How many a round has.
        goals: What the ratio is to be at least, by peer.
        is_long: Whether it takes milliseconds.
    """

    title: str
    slices: int
    goals: dict[str, float]
    is_long: bool = False


WORK = {
    "one": Work("SELECT 1", 40, {"psycopg2": 1.15, "psycopg": 1.3}),
    "row": Work(
        "a row of 10 columns, 3 parameters", 40, {"psycopg2": 1.7, "psycopg": 1.4}
    ),
    "many": Work(
        "10,000 rows × 5 columns, fetchall", 3, {"psycopg2": 2.5, "psycopg": 2.7}, True
    ),
    "insert": Work(
        "executemany INSERT, 10,000 × 5", 1, {"psycopg2": 8, "psycopg": 1.5}, True
    ),
    "file-in": Work("COPY of 100,000 rows in, bytes", 1, EVEN, True),
    "rows-in": Work("COPY of 100,000 rows in, values", 1, EVEN, True),
    "file-out": Work("COPY of 100,000 rows out, bytes", 1, EVEN, True),
    "rows-out": Work("COPY of 100,000 rows out, values", 1, EVEN, True),
    "checkout": Work(
        "SQLAlchemy: connect, select 1, close",
        30,
        {"psycopg2": 1.35, "psycopg": 1.7, PINGED: 2},
    ),
    "delayed": Work(
        "the same, 0.4 ms of network each way", 5, {"psycopg2": 1.9, "psycopg": 1.9}
    ),
    "tasks": Work("the same in a loop of asyncio", 15, {"asyncpg": 1.2}),
    "orm": Work("ORM, 1,000 objects", 3, {"psycopg2": 1.1, "psycopg": 1.2}, True),
}


def main() -> int:
    """Measure and report."""
    story = Story("driver", METHOD, rounds=9)
    story.facts["pinned to core"] = pin()
    with server() as url_of:
        _fill(url_of("psycopg2"))
        delay = Delay(url_of("psycopg2").port or 0, DELAY_S)
        names = (OURS, *PEERS)
        workers = [
            Worker(partial(statements, name, url_of(name), story.scale))
            for name in names
        ]
        story.facts["server of engines on core"] = _move(url_of("psycopg2"))
        workers.extend(
            Worker(partial(engines, name, url_of(name), delay.port))
            for name in names
            if name != "asyncpg"
        )
        workers.extend(Worker(partial(tasks, name, url_of(name))) for name in LOOPED)
        workers.append(Worker(partial(pinged, url_of("psycopg2"))))
        taken: dict[str, list[float]] = {}
        found = {name: w for w in workers for name in w.names}
        for _ in story.rounds():
            for kind, work in WORK.items():
                measures = {
                    name: partial(worker.measure, name)
                    for name, worker in found.items()
                    if name.split()[0] == kind
                }
                count = story.scaled(work.slices, least=2 if work.slices > 1 else 1)
                for name, value in alternate(measures, count).items():
                    taken.setdefault(name, []).append(value)
        for worker in workers:
            worker.close()
        delay.close()
    for kind in WORK:
        for peer in (*PEERS, PINGED):
            if f"{kind} {peer}" in taken:
                _compare(story, taken, kind, peer)
    return story.report()


def _compare(story: Story, taken: dict[str, list[float]], kind: str, peer: str) -> None:
    work = WORK[kind]
    theirs, ours = taken[f"{kind} {peer}"], taken[f"{kind} {OURS}"]
    ratios = [one / other for one, other in zip(theirs, ours, strict=True)]
    unit, named = (1000, "ms") if work.is_long else (1, "µs")
    sides = {
        f"{peer} ({named})": sorted(theirs)[len(theirs) // 2] / unit,
        f"{OURS} ({named})": sorted(ours)[len(ours) // 2] / unit,
    }
    title, goal = f"{work.title}: {peer}", work.goals.get(peer)
    story.add(Number(title, "×", ratios, at_least=goal, sides=sides))


def _fill(url: URL) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"create table many ({TABLE})")
        connection.exec_driver_sql(
            "insert into many select n, 'text number ' || n, n * 1.25, "
            "'2026-01-02 03:04:05.678+00'::timestamptz + n * interval '1 s', "
            "mod(n, 2) = 0 from generate_series(1, 10000) n"
        )
        connection.exec_driver_sql(
            "create table ten (id int primary key, a int, b bigint, c text, d text, "
            "e numeric, f timestamptz, g bool, h float8, i date)"
        )
        connection.exec_driver_sql(
            "insert into ten select n, n, n * 10000000000, 'name', 'text ' || n, "
            "n / 8.0, '2026-01-02 03:04:05.678+00', true, n / 3.0, '2026-01-02' "
            "from generate_series(1, 1000) n"
        )
        connection.exec_driver_sql("analyze")
    engine.dispose()


def _move(url: URL) -> int | None:
    """Have the server's sessions to come run on another core; say on which."""
    with sa.create_engine(url).connect() as connection:
        file = connection.exec_driver_sql("select pg_read_file('postmaster.pid')")
        pid = int(str(file.scalar_one()).split()[0])
    if not hasattr(os, "sched_setaffinity"):
        return None
    ours = os.sched_getaffinity(0)
    with contextlib.suppress(OSError):
        os.sched_setaffinity(pid, {*range(os.cpu_count() or 1)} - ours)
    return min(os.sched_getaffinity(pid))


# --- what is measured ---------------------------------------------------------------

ROW = "select * from ten where id = {0} and a < {1} and c = {2}"
MANY = "select n, t, d, s, b from many"
INSERT = "insert into filled (n, t, d, s, b) values ({0}, {1}, {2}, {3}, {4})"


def statements(name: str, url: URL, scale: float) -> dict[str, Callable[[], float]]:
    """Connect one driver, and make what measures it."""
    if name == "asyncpg":
        return _asyncpg(url, scale)
    dialect = sa.create_engine(url).dialect
    arguments, keywords = dialect.create_connect_args(url)
    measures = _plain(dialect.connect(*arguments, **keywords), scale)
    found = {f"{kind} {name}": measure for kind, measure in measures.items()}
    if name == "pg8000":
        return found
    count = max(10, round(COPIED * scale))
    return found | copied(name, dialect.connect(*arguments, **keywords), count)


def engines(name: str, url: URL, delayed: int) -> dict[str, Callable[[], float]]:
    """Make engines on one driver, and what measures them."""
    near, far = sa.create_engine(url), sa.create_engine(url.set(port=delayed))
    return {
        f"checkout {name}": timed(partial(checkout, near), 15),
        f"delayed {name}": timed(partial(checkout, far), 4),
        f"orm {name}": timed(partial(objects, sa.create_engine(url)), 1),
    }


def tasks(name: str, url: URL) -> dict[str, Callable[[], float]]:
    """Make an engine of asyncio, and what measures it."""
    loop = asyncio.new_event_loop()
    query = {} if name == "asyncpg" else url.query
    engine = create_async_engine(url.set(query=query))

    async def ask() -> None:
        async with engine.connect() as connection:
            (await connection.exec_driver_sql("select 1")).scalar_one()

    async def repeat(calls: int) -> float:
        begun = clock()
        for _ in range(calls):
            await ask()
        return (clock() - begun) / calls * 1e6

    loop.run_until_complete(repeat(20))
    return {f"tasks {name}": lambda: loop.run_until_complete(repeat(15))}


def _plain(connection: Any, scale: float) -> dict[str, Callable[[], float]]:
    marks = ["%s"] * 5
    cursor = connection.cursor()
    cursor.execute(f"create temp table filled ({TABLE})")
    connection.commit()
    rows = values(max(10, round(ROWS * scale)))
    row, insert = ROW.format(*marks), INSERT.format(*marks)

    def one() -> None:
        cursor.execute("select 1")
        cursor.fetchone()

    def ten() -> None:
        cursor.execute(row, (500, 1000, "name"))
        cursor.fetchone()

    def many() -> None:
        cursor.execute(MANY)
        assert len(cursor.fetchall()) == ROWS

    def fill() -> None:
        cursor.executemany(insert, rows)

    def empty() -> None:
        cursor.execute("truncate filled")

    return {
        "one": timed(one, 40),
        "row": timed(ten, 30),
        "many": timed(many, 1),
        "insert": timed(fill, 1, before=empty, warming=0),
    }


def _asyncpg(url: URL, scale: float) -> dict[str, Callable[[], float]]:
    import asyncpg  # type: ignore[import-untyped]  # noqa: PLC0415 - the worker's

    loop = asyncio.new_event_loop()
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = loop.run_until_complete(asyncpg.connect(dsn))
    marks = [f"${n}" for n in range(1, 6)]
    rows = values(max(10, round(ROWS * scale)))
    loop.run_until_complete(connection.execute(f"create temp table filled ({TABLE})"))
    row, insert = ROW.format(*marks), INSERT.format(*marks)

    async def repeat(calls: int, statement: str, values: Sequence[Any]) -> float:
        for _ in range(3):
            await connection.fetch(statement, *values)
        begun = clock()
        for _ in range(calls):
            await connection.fetch(statement, *values)
        return (clock() - begun) / calls * 1e6

    async def fill() -> float:
        await connection.execute("truncate filled")
        begun = clock()
        await connection.executemany(insert, rows)
        return (clock() - begun) * 1e6

    async def inside(work: Any) -> float:
        async with connection.transaction():
            taken: float = await work
        return taken

    def run(make: Callable[[], Any]) -> Callable[[], float]:
        return lambda: float(loop.run_until_complete(inside(make())))

    return {
        "one asyncpg": run(partial(repeat, 40, "select 1", ())),
        "row asyncpg": run(partial(repeat, 30, row, (500, 1000, "name"))),
        "many asyncpg": run(partial(repeat, 1, MANY, ())),
        "insert asyncpg": run(fill),
        **copied_by_asyncpg(loop, connection, max(10, round(COPIED * scale))),
    }


def pinged(url: URL) -> dict[str, Callable[[], float]]:
    """Make what measures the engine that asks before each checkout."""
    engine = sa.create_engine(url, poolclass=QueuePool, pool_pre_ping=True)
    return {f"checkout {PINGED}": timed(partial(checkout, engine), 15)}


def checkout(engine: sa.Engine) -> None:
    """Check out, run the smallest query, check in."""
    with engine.connect() as connection:
        connection.exec_driver_sql("select 1").scalar_one()


class _Base(orm.DeclarativeBase):
    pass


class _Ten(_Base):
    __tablename__ = "ten"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    a: orm.Mapped[int]
    b: orm.Mapped[int] = orm.mapped_column(sa.BigInteger)
    c: orm.Mapped[str]
    d: orm.Mapped[str]
    e: orm.Mapped[decimal.Decimal]
    f: orm.Mapped[dt.datetime] = orm.mapped_column(sa.DateTime(timezone=True))
    g: orm.Mapped[bool]
    h: orm.Mapped[float] = orm.mapped_column(sa.Double)
    i: orm.Mapped[dt.date]


def objects(engine: sa.Engine) -> None:
    """Load a thousand objects."""
    with orm.Session(engine) as session:
        assert len(session.scalars(sa.select(_Ten)).all()) == OBJECTS


def timed(
    call: Callable[[], object],
    calls: int,
    *,
    before: Callable[[], object] | None = None,
    warming: int = 3,
) -> Callable[[], float]:
    """Time so many calls, in µs a call, after a few that warm up."""

    def run() -> float:
        if before is not None:
            before()
        for _ in range(warming if calls > 1 else 0):
            call()
        begun = clock()
        for _ in range(calls):
            call()
        return (clock() - begun) / calls * 1e6

    return run


if __name__ == "__main__":
    sys.exit(main())
