"""Over TLS a peek sees only that something is there: then the server is asked."""

from __future__ import annotations

import pytest
from sqlalchemy import exc, text

import poolproof
from plugins.wire import SOON, Stopwatch, await_message
from poolproof.drill.proxy import Proxy
from poolproof.drill.target import Address

BACKEND = text("select pg_backend_pid()")


@pytest.fixture
def engine(make_engine, debian_pg, driver):
    return make_engine(debian_pg.url(driver), ping_idle_after=60)


def listen(engine, driver):
    """Listen on the only connection; return the session and what it has heard."""
    raw = engine.raw_connection()
    connection = raw.dbapi_connection
    heard = []
    if driver == "psycopg":
        connection.add_notify_handler(lambda one: heard.append(one.payload))
    raw.cursor().execute("listen poolproof_tls")
    raw.commit()
    raw.close()

    def payloads():
        if driver == "psycopg2":
            return [one.payload for one in connection.notifies]
        if driver == "pg8000":
            return [one[2] for one in connection.notifications]
        return heard

    return connection, payloads


def test_notification_is_not_lost_and_costs_nothing(engine, driver, debian_observer):
    connection, payloads = listen(engine, driver)
    debian_observer.rows("notify poolproof_tls, 'hello'")
    await_message(connection)
    raw = engine.raw_connection()
    assert raw.dbapi_connection is connection
    raw.cursor().execute("select 1")
    assert payloads() == ["hello"]
    raw.close()
    assert engine.pool.stats().discarded == {}


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"], indirect=True)
def test_only_what_is_readable_makes_the_pool_ask(
    engine, driver, debian_observer, statements
):
    connection, _payloads = listen(engine, driver)
    asked = statements(engine)
    for _ in range(3):
        engine.connect().close()
    assert asked() == 0
    debian_observer.rows("notify poolproof_tls, 'hello'")
    await_message(connection)
    engine.connect().close()
    assert asked() == 1


def test_terminated_session_is_replaced(engine, debian_observer):
    with engine.connect() as connection:
        pid = connection.scalar(BACKEND)
    debian_observer.terminate(pid)
    with engine.connect() as connection:
        assert connection.scalar(BACKEND) != pid


def test_silent_server_ends_in_time(make_engine, debian_pg, driver):
    with Proxy(Address(host=debian_pg.host, port=debian_pg.port)) as proxy:
        engine = make_engine(
            debian_pg.url(driver).set(port=proxy.port), reset_timeout=0.5
        )
        connection = engine.connect()
        connection.scalar(BACKEND)
        proxy.stall()
        with Stopwatch() as watch, pytest.raises(exc.DBAPIError) as caught:
            connection.rollback()
        assert 0.5 <= watch.seconds < SOON
        assert isinstance(caught.value.orig.__cause__, poolproof.DeadlineExceeded)
        connection.close()
        proxy.resume()
        with engine.connect() as connection:
            assert connection.scalar(BACKEND)
        engine.dispose()
