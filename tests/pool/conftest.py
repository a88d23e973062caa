"""What these tests share: engines through a proxy that can stall."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine

import poolproof
from plugins.cluster import APPLICATION_NAME
from poolproof.drill.proxy import Proxy
from poolproof.drill.target import Address
from poolproof.drivers.base import Driver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

    from poolproof.drill.proxy import Link


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
def proxy(pg) -> Iterator[Proxy]:
    """Stand between the engine and the server."""
    with Proxy(Address(host=pg.host, port=pg.port)) as made:
        yield made


@pytest.fixture
def make_engine() -> Iterator[Callable[..., Engine]]:
    """Make engines over poolproof.Pool with one connection, if not told otherwise."""
    made: list[Engine] = []

    def make(url: Any, **parameters: Any) -> Engine:
        parameters.setdefault("poolclass", poolproof.Pool)
        parameters.setdefault("pool_size", 1)
        parameters.setdefault("max_overflow", 0)
        engine = create_engine(url, **parameters)
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.dispose()


@pytest.fixture
def proxied(proxy, make_engine, pg_url, driver) -> Callable[..., Engine]:
    """Make engines that reach the server through the proxy, without TLS."""

    def make(**parameters: Any) -> Engine:
        return make_engine(pg_url(driver).set(port=proxy.port), **parameters)

    return make


@pytest.fixture
def link(proxy) -> Callable[[], Link]:
    """Return the only connection through the proxy, once nothing passes."""

    def only() -> Link:
        (found,) = proxy.links
        assert found.wait_quiet()
        return found

    return only


@pytest.fixture
def faults_seen() -> Iterator[list[poolproof.FaultEvent]]:
    """Collect what is reported as a fault."""
    seen: list[poolproof.FaultEvent] = []
    stop = poolproof.on_fault(lambda event: seen.append(event) or None)
    yield seen
    stop()


@pytest.fixture
def statements(monkeypatch) -> Callable[[Engine], Callable[[], int]]:
    """Return a function that begins to count the pool's questions to the server."""

    def begin(_: Engine) -> Callable[[], int]:
        asked = []
        really = Driver.ask

        def ask(driver: Driver, connection: Any) -> bool:
            asked.append(connection)
            return really(driver, connection)

        monkeypatch.setattr(Driver, "ask", ask)
        return lambda: len(asked)

    return begin
