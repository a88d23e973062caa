"""A network that is silent for a while, and one that stays so.

The server is behind a wire to a network namespace, on which every packet can be lost.
"""

from __future__ import annotations

import time

import pytest
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.pool import QueuePool

import poolproof
from plugins.threads import Task, eventually
from poolproof.drill import namespace
from poolproof.drill.proxy import Proxy
from poolproof.drill.target import Address
from poolproof.pool.settings import KEEP_ALIVE

pytestmark = pytest.mark.slow


@pytest.fixture
def wire(pg):
    """Lead to the server through a namespace."""
    if (lack := namespace.lacks()) is not None:
        pytest.fail(lack)
    address = Address(host="127.0.0.1", port=pg.port)
    with namespace.Namespace() as host, Proxy(address, host.listen()) as proxy:
        host.port = proxy.port
        yield host


@pytest.fixture
def engine_of(wire, pg_url):
    made = []

    def make(driver, **parameters):
        url = pg_url(driver).set(host=wire.address, port=wire.port)
        arguments = {"ssl_context": False} if driver == "pg8000" else {}
        engine = sa.create_engine(url, connect_args=arguments, **parameters)
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.dispose()


def sleep_through(engine, wire, silent_s):
    """Lose every packet while a statement runs; return what it answers."""
    with engine.connect() as connection:
        connection.execute(sa.text("select 1"))
        running = Task(connection.scalar, sa.text("select 42 from pg_sleep(1)"))
        time.sleep(0.2)
        wire.drop()
        try:
            time.sleep(silent_s)
        finally:
            wire.deliver()
        return running.result()


@pytest.mark.quick("psycopg2")
def test_statement_outlives_a_silence_that_keep_alives_allow(wire, driver, engine_of):
    """Half of what they allow: the default allows 90 s."""
    engine = engine_of(driver, poolclass=poolproof.Pool, keep_alive=(1, 1, 5))
    assert sleep_through(engine, wire, 3) == 42


def test_default_allows_more_than_a_minute_of_silence():
    idle_s, interval_s, count = KEEP_ALIVE
    assert idle_s + interval_s * count > 60


@pytest.mark.soak
@pytest.mark.parametrize("kind", [QueuePool, poolproof.Pool])
def test_default_outlives_a_silence_of_a_quarter_of_a_minute(
    wire, driver, engine_of, kind
):
    assert sleep_through(engine_of(driver, poolclass=kind), wire, 15) == 42


@pytest.mark.quick("psycopg2")
def test_cause_of_a_call_that_keep_alives_end_names_them(wire, driver, engine_of):
    engine = engine_of(driver, poolclass=poolproof.Pool, keep_alive=(1, 1, 1))
    with engine.connect() as connection:
        running = Task(connection.scalar, sa.text("select 42 from pg_sleep(60)"))
        time.sleep(0.2)
        wire.drop()
        try:
            with pytest.raises(exc.DBAPIError) as caught:
                running.result()
        finally:
            wire.deliver()
    assert caught.value.connection_invalidated
    cause = caught.value.orig.__cause__
    assert type(cause).__name__ == "TimeoutError"
    assert isinstance(cause, TimeoutError)
    assert "silent for about 2 s" in str(cause)
    assert "(1 s, then 1 questions 1 s apart)" in str(cause)
    assert "keep_alive sets" in str(cause)
    assert not isinstance(cause, poolproof.DeadlineExceeded)
    assert poolproof.classify(caught.value).fault is poolproof.Fault.CONNECTION_LOST


@pytest.mark.quick("psycopg2")
def test_connection_that_died_at_rest_is_found_within_the_ping(wire, driver, engine_of):
    """The default does not end it sooner: the pool asks."""
    engine = engine_of(
        driver, poolclass=poolproof.Pool, ping_idle_after=0, ping_timeout=0.5
    )
    with engine.connect() as connection:
        pid = connection.scalar(sa.text("select pg_backend_pid()"))
    wire.drop()
    try:
        began = time.monotonic()
        task = Task(engine.connect)
        eventually(lambda: engine.pool.stats().discarded)
        assert time.monotonic() - began < 10
    finally:
        wire.deliver()
    with task.result() as connection:
        assert connection.scalar(sa.text("select pg_backend_pid()")) != pid
