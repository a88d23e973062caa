"""The plugin: what pytest finds under the entry point ``pytest11``.

Every run of pytest imports it, in whatever suite: so it stands beside the package,
whose import brings SQLAlchemy, and each fixture imports what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine
    from sqlalchemy.engine import URL

    from poolproof.drill.server import EmbeddedServer
    from poolproof.testing.fault_proxy import FaultProxy
    from poolproof.testing.fork_drill import ForkDrill

__all__ = ["assert_no_leaked_connections", "fault_proxy", "fork_drill", "postgres"]


@pytest.fixture
def assert_no_leaked_connections() -> Iterator[Callable[[], None]]:
    """Fail a test that leaves a connection checked out, of any pool of SQLAlchemy's.

    What was checked out before the test began is not counted.

    Yields:
        A function that looks at once. It looks again when the test is over. A thread
        that is still giving a connection back has a second for that.

    Raises:
        Failed: A connection is out; the message has the pool, the thread, and the line
            that took it.
    """
    from poolproof.testing.leaks import Leaks  # noqa: PLC0415 - see the module

    with Leaks() as leaks:

        def look() -> None:
            if found := leaks.found():
                pytest.fail(found, pytrace=False)

        yield look
        look()


@pytest.fixture
def fork_drill() -> Callable[..., ForkDrill]:
    """Fork, and have the children and their parent ask a service at the same time.

    Returns:
        A function, ``fork_drill(ask, children=2, calls=20, timeout=60.0)``: see
        `poolproof.testing.fork_drill.play`. It returns what came of it when every
        answer was right.

    Raises:
        Failed: An answer was another's, a call failed, or a process hung; the message
            counts and quotes them.
    """
    from poolproof.testing import fork_drill as drill  # noqa: PLC0415 - see the module

    def play(
        ask: Callable[[int], object],
        *,
        children: int = 2,
        calls: int = 20,
        timeout: float = 60.0,
    ) -> ForkDrill:
        played = drill.play(ask, children=children, calls=calls, timeout=timeout)
        if not played.is_right:
            pytest.fail(str(played), pytrace=False)
        return played

    return play


@pytest.fixture
def fault_proxy() -> Iterator[Callable[[str | URL | Engine], FaultProxy]]:
    """Put a proxy that can do harm between a service and its database.

    Yields:
        A function that takes an engine or a URL, and returns a running
        `poolproof.testing.fault_proxy.FaultProxy` to that database. All are stopped
        when the test is over.

    Raises:
        UsageError: No PostgreSQL can be reached by what was given.
    """
    from poolproof.testing.fault_proxy import FaultProxy  # noqa: PLC0415

    started: list[FaultProxy] = []

    def start(database: str | URL | Engine) -> FaultProxy:
        proxy = FaultProxy(database).start()
        started.append(proxy)
        return proxy

    yield start
    for proxy in started:
        proxy.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedServer]:
    """Run a PostgreSQL for the whole session, on a loopback port.

    Yields:
        A `poolproof.drill.server.EmbeddedServer`: ``postgres.url`` is a SQLAlchemy URL
        without a driver, `shut_down` and `start_again` are an outage. Its data is gone
        with the session.

    Raises:
        Failed: The package with PostgreSQL's programs is missing, or it did not start.
    """
    from poolproof.drill.errors import SetupError  # noqa: PLC0415 - see the module
    from poolproof.drill.server import EmbeddedServer  # noqa: PLC0415

    server = EmbeddedServer()
    try:
        server.start()
    except SetupError as error:
        pytest.fail(f"the fixture postgres: {error}", pytrace=False)
    yield server
    server.stop()
