"""A refused write: the application's mistake where nobody could ever write there.

Only a change is a failover. What a failover itself does is in test_failover.py.
"""

from __future__ import annotations

import asyncio

import psycopg2.extensions
import pytest
import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import QueuePool

import poolproof
from plugins.cluster import Cluster
from plugins.harm import driver_connections, first_error
from poolproof import Fault
from poolproof.faults import opened

INSERT = sa.text("create table mistaken (n integer)")


@pytest.fixture
def engine_of(pg_url):
    made = []

    def make(driver, *, read_only=True, **options):
        url = pg_url(driver)
        engine = sa.create_engine(url, **{"pool_size": 5, **options})
        if read_only:
            event.listen(engine, "do_connect", _read_only_from_the_start)
        if not isinstance(engine.pool, poolproof.Pool):
            poolproof.guard(engine)
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.dispose()


def _read_only_from_the_start(dialect, _record, _args, keywords):
    """As a role, a database or a standby makes it: known when the session begins."""
    option = "default_transaction_read_only"
    if dialect.driver == "pg8000":
        keywords["startup_params"] = {option: "on"}
    else:
        keywords["options"] = f"-c {option}=on"


def opened_of(engine):
    """Count the sessions that an engine opens."""
    found = []
    event.listen(engine, "connect", lambda *_: found.append(1))
    return found


def use(engine, requests=100):
    """Read, and write by mistake in one request of twenty."""
    refused = 0
    for number in range(requests):
        with engine.connect() as connection:
            connection.execute(sa.text("select 1"))
            if number % 20 == 0:
                with pytest.raises(exc.DBAPIError):
                    connection.execute(INSERT)
                refused += 1
    return refused


@pytest.mark.parametrize("kind", [QueuePool, poolproof.Pool])
def test_mistaken_write_replaces_nothing(engine_of, driver, events, kind):
    """As many sessions as with QueuePool alone: one, here."""
    engine = engine_of(driver, poolclass=kind)
    sessions = opened_of(engine)
    assert use(engine) == 5
    assert len(sessions) == 1
    assert events == []


def test_mistaken_write_is_not_repeated(engine_of, driver):
    engine = engine_of(driver, poolclass=poolproof.Pool)
    calls = []

    def unit(connection):
        calls.append(1)
        connection.execute(INSERT)

    with pytest.raises(exc.DBAPIError):
        poolproof.run_transaction(engine, unit)
    assert len(calls) == 1


def test_mistaken_write_over_asyncpg_replaces_nothing(pg_url, events):
    assert asyncio.run(_use_asyncpg(pg_url("asyncpg").set(query={}))) == 1
    assert events == []


async def _use_asyncpg(url):
    """Write by mistake three times; return how many sessions that took."""
    engine = create_async_engine(
        url,
        connect_args={"server_settings": {"default_transaction_read_only": "on"}},
    )
    poolproof.guard(engine)
    sessions = opened_of(engine.sync_engine)
    for _ in range(3):
        async with engine.connect() as connection:
            with pytest.raises(exc.DBAPIError):
                await connection.execute(INSERT)
    await engine.dispose()
    return len(sessions)


class _Silent(psycopg2.extensions.connection):
    """A driver's connection that does not tell what the server reports."""

    @property
    def info(self):
        return _Info(self)


class _Info(psycopg2.extensions.ConnectionInfo):
    def parameter_status(self, _name):
        return None


@pytest.mark.parametrize("kind", [QueuePool, poolproof.Pool])
def test_where_the_driver_does_not_tell_a_session_is_asked_once(
    engine_of, events, kind, monkeypatch
):
    asked = []
    ask = opened._ask
    monkeypatch.setattr(opened, "_ask", lambda one: asked.append(1) or ask(one))
    engine = engine_of(
        "psycopg2", poolclass=kind, connect_args={"connection_factory": _Silent}
    )
    sessions = opened_of(engine)
    use(engine)
    assert len(sessions) == 2
    # The first time it may have been a failover.
    assert [one.fault for one in events] == [Fault.READ_ONLY]
    events.clear()
    engine.dispose()
    use(engine)
    assert len(sessions) == 3
    assert len(asked) == 1


# --- a change -------------------------------------------------------------------------


@pytest.fixture
def machine(pg):
    """Run a server of one test's own, whose settings change."""
    cluster = Cluster(pg.binaries, package=pg.package)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def become_read_only(machine, connection):
    """Have every session of a server refuse writes, those that are open too."""
    admin = sa.create_engine(
        machine.url("psycopg2"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool
    )
    with admin.connect() as other:
        other.execute(sa.text("alter system set default_transaction_read_only = on"))
        other.execute(sa.text("select pg_reload_conf()"))
    for _ in range(1000):
        if connection.scalar(sa.text("show default_transaction_read_only")) == "on":
            break
        connection.rollback()
    connection.rollback()


def set_read_only(connection, _record):
    before = connection.autocommit
    connection.autocommit = True
    connection.cursor().execute("set default_transaction_read_only = on")
    connection.autocommit = before


def set_in_transaction(connection):
    connection.execute(sa.text("set transaction read only"))


def set_in_session(connection):
    connection.execute(sa.text("set default_transaction_read_only = on"))
    connection.commit()


@pytest.mark.parametrize("kind", [QueuePool, poolproof.Pool])
@pytest.mark.parametrize("level", ["READ COMMITTED", "AUTOCOMMIT"])
def test_session_that_a_connect_listener_made_read_only_is_kept(
    engine_of, driver, events, kind, level
):
    """As many sessions as with QueuePool alone: one, here."""
    engine = engine_of(driver, poolclass=kind, read_only=False, isolation_level=level)
    event.listen(engine, "connect", set_read_only)
    sessions = opened_of(engine)
    assert use(engine) == 5
    assert len(sessions) == 1
    assert events == []


@pytest.mark.parametrize("kind", [QueuePool, poolproof.Pool])
@pytest.mark.parametrize("how", [set_in_transaction, set_in_session])
def test_session_that_its_user_made_read_only_is_kept(
    engine_of, driver, events, kind, how
):
    engine = engine_of(driver, poolclass=kind, read_only=False, pool_size=3)
    sessions = opened_of(engine)
    with engine.connect(), engine.connect():
        for _ in range(6):
            with engine.connect() as connection:
                how(connection)
                with pytest.raises(exc.DBAPIError):
                    connection.execute(INSERT)
    assert len(sessions) == 3
    assert events == []


@pytest.mark.parametrize("kind", [QueuePool, poolproof.Pool])
def test_savepoint_goes_on_where_the_session_chose(engine_of, driver, events, kind):
    engine = engine_of(driver, poolclass=kind, read_only=False)
    with engine.connect() as connection:
        set_in_session(connection)
        connection.execute(sa.text("select 1"))
        with pytest.raises(exc.DBAPIError), connection.begin_nested():
            connection.execute(INSERT)
        assert connection.scalar(sa.text("select 1")) == 1
        connection.commit()
    assert events == []


def test_chosen_write_is_repeated_once_at_most(engine_of, driver, events):
    """Once it is known whose will it was, no more."""
    engine = engine_of(driver, poolclass=poolproof.Pool, read_only=False)
    event.listen(engine, "connect", set_read_only)
    calls = []

    def unit(connection):
        calls.append(1)
        connection.execute(INSERT)

    for most in (2, 1, 1):
        calls.clear()
        with pytest.raises(exc.DBAPIError):
            poolproof.run_transaction(engine, unit)
        assert len(calls) <= most
    assert events == []


def test_session_over_asyncpg_that_chose_is_kept(pg_url, events):
    async def twice():
        engine = create_async_engine(pg_url("asyncpg").set(query={}))
        poolproof.guard(engine)
        sessions = opened_of(engine.sync_engine)
        for _ in range(2):
            async with engine.connect() as connection:
                await connection.execute(
                    sa.text("set default_transaction_read_only = on")
                )
                await connection.commit()
                with pytest.raises(exc.DBAPIError):
                    await connection.execute(INSERT)
        await engine.dispose()
        return len(sessions)

    assert asyncio.run(twice()) == 1
    assert events == []


@pytest.mark.parametrize("level", ["READ COMMITTED", "AUTOCOMMIT"])
@pytest.mark.parametrize("kind", [QueuePool, poolproof.Pool])
def test_server_that_changed_costs_every_connection(
    machine, driver, events, level, kind
):
    engine = sa.create_engine(
        machine.url(driver), pool_size=2, poolclass=kind, isolation_level=level
    )
    poolproof.guard(engine)
    before = driver_connections(engine, 2)
    with engine.connect() as connection:
        become_read_only(machine, connection)
        first_error(lambda: connection.execute(INSERT))
    found = events.pop()
    assert (found.fault, found.verdict.cost) == (Fault.READ_ONLY, "generation")
    assert found.backend_pid is not None
    assert not set(before) & set(driver_connections(engine, 2))
    events.clear()
    engine.dispose()


def test_session_that_could_write_costs_the_generation(
    machine, driver, events, monkeypatch
):
    engine = sa.create_engine(
        machine.url(driver), pool_size=2, poolclass=poolproof.Pool
    )
    before = driver_connections(engine, 2)
    with engine.connect() as connection:
        become_read_only(machine, connection)
        first_error(lambda: connection.execute(INSERT))
    found = events.pop()
    assert (found.fault, found.verdict.cost) == (Fault.READ_ONLY, "generation")
    replaced = driver_connections(engine, 2)
    assert not set(before) & set(replaced)

    # The address still leads to a server that refuses: not at each write.
    with engine.connect() as connection:
        first_error(lambda: connection.execute(INSERT))
    found = events.pop()
    assert (found.fault, found.verdict.cost) == (Fault.READ_ONLY, "nothing")
    assert found.verdict.retry == "whole_unit"
    assert set(driver_connections(engine, 2)) == set(replaced)

    # It may lead elsewhere by now.
    monkeypatch.setattr("poolproof.faults.opened._AGAIN_S", 0.0)
    with engine.connect() as connection:
        first_error(lambda: connection.execute(INSERT))
    assert events.pop().verdict.cost == "generation"
    assert not set(driver_connections(engine, 2)) & set(replaced)
    assert events == []
    engine.dispose()
