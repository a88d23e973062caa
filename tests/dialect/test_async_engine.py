"""`create_async_engine("postgresql+poolproof://...")`."""

from __future__ import annotations

import asyncio
import datetime as dt
import select

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool

import poolproof
import poolproof.driver
from poolproof.dialect.aio import PoolproofDialectAsync
from poolproof.driver import aio


class Base(DeclarativeBase):
    """Of the models here."""


class Thing(Base):
    """A row with values of several types."""

    __tablename__ = "async_things"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    tags: Mapped[list[str]] = mapped_column(pg.ARRAY(sa.String))
    facts: Mapped[dict[str, int]] = mapped_column(pg.JSONB)
    made: Mapped[dt.datetime] = mapped_column(sa.DateTime(timezone=True))


@pytest.fixture
def url(pg_url):
    return pg_url("poolproof")


def run(main, url, **options):
    """Run a test's coroutine with an engine, which is disposed of."""

    async def with_engine():
        engine = create_async_engine(url, **options)
        try:
            return await main(engine)
        finally:
            await engine.dispose()

    return asyncio.run(with_engine())


def test_statements_are_prepared_and_nothing_is_discarded_for_it(url):
    async def main(engine):
        pids = set()
        for number in range(50):
            async with engine.connect() as connection:
                asked = sa.text("select :n").bindparams(n=number)
                assert await connection.scalar(asked) == number
                pids.add(await connection.scalar(sa.text("select pg_backend_pid()")))
        async with engine.connect() as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            assert (raw.prepare_threshold, raw.wire.prepared > 0) == (5, True)
            await connection.execute(sa.text("select 1"))
            await connection.rollback()
            assert not select.select([raw.fileno()], [], [], 0)[0]  # nothing to come
        assert len(pids) == 1
        assert not engine.sync_engine.pool.stats().discarded

    run(main, url, pool_size=1, max_overflow=0)


def test_an_answer_that_has_come_before_anybody_waits_is_no_error(url):
    def at_once(descriptor, for_writing, timeout_s):
        """Wait as a thread does: the greenlet never gives its turn away."""
        waits_for = [descriptor] if for_writing else []
        return any(select.select([descriptor], waits_for, [], timeout_s))

    async def main(engine):
        @sa.event.listens_for(engine.sync_engine, "connect")
        def answers_at_once(connection, _record):
            connection.wait = at_once

        async with engine.connect() as connection:
            assert await connection.scalar(sa.text("select 1")) == 1
            await connection.execute(sa.text("create temporary table t (n int)"))
            many = sa.text("insert into t values (:n)")
            await connection.execute(many, [{"n": 1}, {"n": 2}])
            assert await connection.scalar(sa.text("select sum(n) from t")) == 3
            streamed = await connection.stream(sa.text("select n from t order by n"))
            assert [row.n async for row in streamed] == [1, 2]

    run(main, url)


def test_url_names_the_dialect_the_driver_and_the_pool(url):
    engine = create_async_engine(url)
    assert type(engine.dialect) is PoolproofDialectAsync
    assert type(engine.pool) is poolproof.AsyncPool
    assert (engine.name, engine.driver) == ("postgresql", "poolproof")


@pytest.mark.parametrize("kind", [AsyncAdaptedQueuePool, NullPool])
def test_other_pools_work(url, kind):
    async def main(engine):
        for _ in range(3):
            async with engine.connect() as connection:
                assert await connection.scalar(sa.select(1)) == 1

    run(main, url, poolclass=kind, pool_pre_ping=True)


def test_models_of_the_orm(url):
    now = dt.datetime.now(dt.timezone.utc)

    async def main(engine):
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
            await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(engine) as session:
            session.add_all(
                Thing(name=f"n{n}", tags=["a", f"{n}"], facts={"n": n}, made=now)
                for n in range(100)
            )
            await session.commit()
        async with AsyncSession(engine) as session:
            found = (await session.scalars(sa.select(Thing).order_by(Thing.id))).all()
            assert [thing.name for thing in found] == [f"n{n}" for n in range(100)]
            assert found[7].tags == ["a", "7"]
            assert found[7].facts == {"n": 7}
            assert found[7].made == now
            await session.delete(found[0])
            await session.rollback()
            streamed = await session.stream(sa.select(Thing.id))
            assert len([row async for row in streamed]) == 100
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)

    run(main, url)


def test_isolation_levels_and_read_only(url):
    async def main(engine):
        async with engine.connect() as connection:
            level = "SERIALIZABLE"
            await connection.execution_options(isolation_level=level)
            assert await connection.get_isolation_level() == level
            show = sa.text("show transaction_isolation")
            assert await connection.scalar(show) == "serializable"
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            raw = await connection.get_raw_connection()
            assert raw.driver_connection.autocommit

    run(main, url)


def test_a_task_has_the_drivers_twin(url):
    async def main(engine):
        async with engine.connect() as connection:
            await connection.execute(sa.text("create temp table c (n int)"))
            raw = await connection.get_raw_connection()
            twin = raw.driver_connection
            assert isinstance(twin, aio.AsyncConnection)
            async with twin.cursor().copy("copy c from stdin") as copy:
                await copy.write_rows((n,) for n in range(10))
            assert await connection.scalar(sa.text("select count(*) from c")) == 10
            one = await (await twin.execute("select 1")).fetchone()
            assert one == (1,)

        def ask(sync):
            raw = sync.connection.dbapi_connection
            return raw.run_async(lambda twin: twin.ping())

        async with engine.connect() as connection:
            assert await connection.run_sync(ask) is None

    run(main, url)


def test_a_creator_of_the_callers(url):
    made = []

    async def create():
        plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
        made.append(await aio.connect(plain))
        return made[-1]

    async def main(engine):
        async with engine.connect() as connection:
            pid = await connection.scalar(sa.text("select pg_backend_pid()"))
        assert [one.info.backend_pid for one in made] == [pid]

    run(main, "postgresql+poolproof://", async_creator=create)


def test_errors_are_of_their_classes(url):
    async def main(engine):
        async with engine.connect() as connection:
            with pytest.raises(sa.exc.ProgrammingError) as caught:
                await connection.execute(sa.text("select nothing"))
            assert isinstance(caught.value.orig, poolproof.driver.ProgrammingError)
            await connection.rollback()
            with pytest.raises(sa.exc.DataError):
                await connection.execute(sa.text("select 1 / 0"))

    run(main, url)


def test_savepoints(url):
    async def main(engine):
        async with engine.connect() as connection:
            transaction = await connection.begin()
            await connection.execute(sa.text("select 1"))
            nested = await connection.begin_nested()
            await nested.rollback()
            await transaction.commit()

    run(main, url)


def test_notices_go_to_the_log(url, caplog):
    async def main(engine):
        async with engine.connect() as connection:
            shout = "do $$ begin raise notice 'hello'; end $$"
            await connection.execute(sa.text(shout))

    with caplog.at_level("INFO", logger="sqlalchemy.dialects.postgresql"):
        run(main, url)
    assert "hello" in caplog.text
