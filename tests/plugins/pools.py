"""The two pools under one contract, and what the tests do with them."""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import QueuePool

import poolproof
from plugins.server import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine
    from sqlalchemy.pool import Pool, PoolProxiedConnection

    from plugins.dbapi import StubDBAPI

    MakePool = Callable[..., QueuePool]
    MakeEngine = Callable[..., Engine]

PATIENCE = 20.0  # seconds that a thread of a test may take


@pytest.fixture(params=["queue", "poolproof"])
def pool_class(request: pytest.FixtureRequest) -> type[Pool]:
    """Run the test over SQLAlchemy's QueuePool and over poolproof.Pool."""
    return QueuePool if request.param == "queue" else poolproof.Pool


@pytest.fixture
def make_pool(pool_class: type[Pool], dbapi: StubDBAPI) -> Iterator[MakePool]:
    """Make pools over the scripted driver; dispose of them at the end."""
    made: list[Pool] = []

    def make(creator: Any = None, **parameters: Any) -> Any:  # noqa: ANN401
        parameters.setdefault("timeout", PATIENCE)
        pool = pool_class(creator or dbapi.connect, **parameters)
        made.append(pool)
        return pool

    yield make
    dbapi.script.clear()
    for pool in made:
        pool.dispose()


@pytest.fixture
def make_engine(pool_class: type[Pool]) -> Iterator[MakeEngine]:
    """Make engines over the pool under test; dispose of them at the end."""
    made: list[Engine] = []

    def make(url: Any, **parameters: Any) -> Engine:  # noqa: ANN401
        parameters.setdefault("poolclass", pool_class)
        engine = create_engine(url, **parameters)
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.dispose()


@pytest.fixture
def stub_engine(make_engine: MakeEngine, dbapi: StubDBAPI) -> MakeEngine:
    """Make engines over the scripted driver, without a first look at the server."""

    def make(**parameters: Any) -> Engine:  # noqa: ANN401
        parameters.setdefault("pool_timeout", PATIENCE)
        return make_engine(
            "postgresql+psycopg2://stub", module=dbapi, _initialize=False, **parameters
        )

    return make


class Task(threading.Thread):
    """A thread whose outcome is asked for: ``result()`` returns or raises it."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:  # noqa: ANN401
        super().__init__(daemon=True)
        self._function = function
        self._arguments = arguments
        self._result: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Call the function; keep what comes out."""
        try:
            self._result = self._function(*self._arguments)
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks
            self._error = error
        finally:
            del self._function, self._arguments

    def result(self, seconds: float = PATIENCE) -> Any:  # noqa: ANN401
        """Return what the function returned, or raise what it raised."""
        self.join(seconds)
        assert not self.is_alive(), f"the thread still runs after {seconds} s"
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        result, self._result = self._result, None
        return result


def waiting(pool: Any) -> int:  # noqa: ANN401
    """Return how many threads wait in the pool for a connection."""
    if isinstance(pool, QueuePool):
        return len(pool._pool.not_empty._waiters)  # type: ignore[attr-defined]
    return int(pool.stats().waiting)


def wait_for_waiters(pool: Any, count: int) -> None:  # noqa: ANN401
    """Return when exactly *count* threads wait in the pool."""
    eventually(lambda: waiting(pool) == count, what=f"{count} waiting threads")


def assert_whole(pool: Any, dbapi: StubDBAPI, capacity: int) -> None:  # noqa: ANN401
    """Assert that nothing is out and that the full capacity can be taken.

    Args:
        pool: The pool, with nobody using it.
        dbapi: Its scripted driver; the script is cleared.
        capacity: The size and the overflow together.
    """
    dbapi.script.clear()
    gc.collect()
    assert pool.checkedout() == 0, pool.status()
    tasks = [Task(pool.connect) for _ in range(capacity)]
    taken: list[PoolProxiedConnection] = [task.result() for task in tasks]
    assert pool.checkedout() == capacity, pool.status()
    assert len({id(one.dbapi_connection) for one in taken}) == capacity
    for one in taken:
        one.close()
    assert pool.checkedout() == 0, pool.status()
    assert pool.checkedin() <= max(pool.size(), capacity if not pool.size() else 0)
