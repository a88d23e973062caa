"""Engines over the pool for the fork tests, and what the parent asserts of itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, text

import poolproof
from plugins.server import ALL_DRIVERS, DRIVERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

SILENT_PARENT_SECONDS = 10.0


@pytest.fixture(autouse=True)
def _no_leaks(no_leaks):
    return no_leaks


@pytest.fixture
def make_engine() -> Iterator[Callable[..., Engine]]:
    """Make engines over poolproof.Pool; dispose of them at the end, in the parent."""
    made = []
    owner = os.getpid()

    def make(url: Any, **parameters: Any) -> Engine:
        parameters.setdefault("poolclass", poolproof.Pool)
        parameters.setdefault("pool_timeout", 10)
        engine = create_engine(url, **parameters)
        made.append(engine)
        return engine

    yield make
    if os.getpid() == owner:
        for engine in made:
            engine.dispose()


# The kind of socket is the system's affair, not the driver's: one driver tries both.
SOCKETS = ["psycopg2-unix", "psycopg2-tcp", "psycopg-tcp", "pg8000-unix"]
SOCKETS = [name for name in SOCKETS if name.split("-")[0] in DRIVERS]
if ",".join(DRIVERS) == ALL_DRIVERS:
    SOCKETS.append("poolproof-tcp")


@pytest.fixture(params=SOCKETS)
def engine(request, pg_url, make_engine) -> Engine:
    """Make an engine per driver and kind of socket."""
    driver, kind = request.param.split("-")
    return make_engine(pg_url(driver, unix=kind == "unix"))


class OpenTransaction:
    """A transaction of the parent with rows in it, and what became of it."""

    def __init__(self, engine: Engine, table: str, observer) -> None:
        self.table = table
        self._observer = observer
        self.connection = engine.connect()
        self.insert()
        self.backend = self.connection.scalar(text("select pg_backend_pid()"))
        self._before = self._activity()

    def insert(self, connection=None) -> None:
        (connection or self.connection).execute(
            text(f"insert into {self.table} values (:n)"), {"n": os.getpid()}
        )

    def _activity(self) -> list[tuple]:
        return self._observer.rows(
            "select state, query, state_change from pg_stat_activity where pid = %s",
            self.backend,
        )

    def assert_untouched(self) -> None:
        """Assert that the session saw nothing, then commit and find every row."""
        assert self._activity() == self._before, "the child reached the session"
        self.insert()
        self.connection.commit()
        self.connection.close()
        count = f"select count(*) from {self.table} where n = {os.getpid()}"
        assert self._observer.value(count) == 2


@pytest.fixture
def open_transaction(engine, table, observer) -> OpenTransaction:
    """Open a transaction in the parent; its connection is checked out."""
    return OpenTransaction(engine, table, observer)


@pytest.fixture
def backend_of() -> Callable[[Engine], int]:
    """Return a function that asks an engine which backend it talks to."""

    def ask(engine: Engine) -> int:
        with engine.connect() as connection:
            return connection.scalar(text("select pg_backend_pid()"))

    return ask
