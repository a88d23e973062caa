"""What the tests of repeating share: engines, a proxy, what was tried."""

from __future__ import annotations

import gc

import pytest
from sqlalchemy import create_engine

import poolproof
from plugins.cluster import APPLICATION_NAME
from poolproof.drill.proxy import Proxy
from poolproof.drill.target import Address


@pytest.fixture(autouse=True)
def _no_leaks(no_leaks, request):
    yield no_leaks
    if "pg" in request.fixturenames:
        # A server that sleeps does not notice that its client is gone.
        request.getfixturevalue("observer").rows(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where wait_event = 'PgSleep' and application_name = %s",
            APPLICATION_NAME,
        )


@pytest.fixture
def make_engine():
    """Make engines over poolproof.Pool with one connection, if not told otherwise."""
    made = []

    def make(url, **parameters):
        parameters.setdefault("poolclass", poolproof.Pool)
        parameters.setdefault("pool_size", 1)
        parameters.setdefault("max_overflow", 0)
        made.append(create_engine(url, **parameters))
        return made[-1]

    yield make
    for engine in made:
        engine.dispose()
    gc.collect()  # pg8000 leaves the socket of a broken connection to the collector


@pytest.fixture
def engine(make_engine, pg_url, driver):
    return make_engine(pg_url(driver))


@pytest.fixture
def attempted():
    """Collect what is reported of attempts."""
    seen = []
    stop = poolproof.on_attempt(seen.append)
    yield seen
    stop()
    seen.clear()  # the errors hold the connections that they came from


@pytest.fixture
def proxy(pg):
    """Stand between the engine and the server."""
    with Proxy(Address(host=pg.host, port=pg.port)) as made:
        yield made


@pytest.fixture
def proxied(proxy, make_engine, pg_url, driver):
    """Make an engine that reaches the server through the proxy, without TLS."""

    def make(**parameters):
        return make_engine(pg_url(driver).set(port=proxy.port), **parameters)

    return make


@pytest.fixture
def link(proxy):
    """Return the connection through the proxy that was made last."""
    return lambda: [one for one in proxy.links if one.alive][-1]
