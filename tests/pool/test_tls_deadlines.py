"""Deadlines and looks hold over TLS, where a peek cannot tell what has arrived."""

from __future__ import annotations

import ssl

import pytest
from sqlalchemy import exc, text

import poolproof
from plugins.wire import SOON, Stopwatch, backend
from poolproof.drill.proxy import Proxy
from poolproof.drill.target import Address

BACKEND = text("select pg_backend_pid()")


@pytest.fixture
def tls_proxy(debian_pg):
    with Proxy(Address(host=debian_pg.host, port=debian_pg.port)) as made:
        yield made


@pytest.fixture
def encrypted(debian_pg, tls_proxy, driver, make_engine):
    """Make engines whose connections are encrypted and pass the proxy."""
    if driver == "pg8000":
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        options = {"ssl_context": context}
    else:
        options = {"sslmode": "require"}
    url = debian_pg.url(driver).set(port=tls_proxy.port)
    return lambda **parameters: make_engine(url, connect_args=options, **parameters)


def test_rollback_over_tls_ends_in_time(encrypted, tls_proxy):
    engine = encrypted(reset_timeout=0.3)
    with engine.connect() as connection:
        assert connection.scalar(
            text("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
        )
        tls_proxy.links[0].stall()
        with Stopwatch() as watch, pytest.raises(exc.DBAPIError):
            connection.rollback()
    assert 0.3 <= watch.seconds < SOON
    assert engine.pool.stats().discarded == {"rollback_timeout": 1}


def test_ping_over_tls_ends_in_time(encrypted, tls_proxy):
    engine = encrypted(pool_pre_ping="always", ping_timeout=0.3)
    first = backend(engine)
    tls_proxy.links[0].stall()
    with Stopwatch() as watch:
        assert backend(engine) != first
    assert 0.3 <= watch.seconds < SOON
    assert engine.pool.stats().discarded == {"ping_timeout": 1}


def test_block_over_tls_ends_in_time(encrypted):
    engine = encrypted()
    with engine.connect() as connection:
        with (
            Stopwatch() as watch,
            pytest.raises(exc.DBAPIError) as caught,
            poolproof.deadline(0.4),
        ):
            connection.execute(text("select pg_sleep(20)"))
        assert isinstance(caught.value.orig.__cause__, poolproof.DeadlineExceeded)
    assert watch.seconds < SOON


def test_disposal_of_stalled_sessions_over_tls_ends_in_time(encrypted, tls_proxy):
    engine = encrypted(pool_size=4, reset_timeout=0.3)
    held = [engine.connect() for _ in range(4)]
    for one in held:
        one.scalar(BACKEND)
        one.close()
    tls_proxy.stall()
    with Stopwatch() as watch:
        engine.dispose()
    assert watch.seconds < SOON
