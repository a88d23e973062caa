"""The two pools under one contract, over scripted drivers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import QueuePool

import poolproof
from plugins.dbapi import SocketDBAPI, StubDBAPI
from plugins.threads import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine
    from sqlalchemy.pool import Pool

    MakePool = Callable[..., QueuePool]
    MakeEngine = Callable[..., Engine]


@pytest.fixture(params=[StubDBAPI, SocketDBAPI], ids=["plain", "socket"])
def dbapi(request: pytest.FixtureRequest) -> Iterator[StubDBAPI]:
    """Script a driver: one that has no descriptor, and one whose descriptor is real."""
    stub: StubDBAPI = request.param()
    yield stub
    stub.script.clear()
    for connection in list(stub.open.values()):
        connection.close()


@pytest.fixture
def socket_dbapi() -> Iterator[SocketDBAPI]:
    """Script a driver whose connections are real sockets."""
    stub = SocketDBAPI()
    yield stub
    stub.script.clear()
    for connection in list(stub.open.values()):
        connection.close()


# Without SQLAlchemy's own where it is enough that ours keeps the contract.
POOLS = os.environ.get("POOLPROOF_TEST_POOLS", "queue,poolproof").split(",")


@pytest.fixture(params=POOLS)
def pool_class(request: pytest.FixtureRequest) -> type[Pool]:
    """Run the test over SQLAlchemy's QueuePool and over poolproof.Pool."""
    return QueuePool if request.param == "queue" else poolproof.Pool


@pytest.fixture
def make_pool(pool_class: type[Pool], dbapi: StubDBAPI) -> Iterator[MakePool]:
    """Make pools over the scripted driver; dispose of them at the end."""
    made: list[Pool] = []

    def make(creator: Any = None, **parameters: Any) -> Any:
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

    def make(url: Any, **parameters: Any) -> Engine:
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

    def make(**parameters: Any) -> Engine:
        parameters.setdefault("pool_timeout", PATIENCE)
        return make_engine(
            "postgresql+psycopg2://127.0.0.1/stub",
            module=dbapi,
            _initialize=False,
            **parameters,
        )

    return make


def rest(pool: Pool, count: int) -> None:
    """Have so many connections rest in the pool: check them out, and in again."""
    for fairy in [pool.connect() for _ in range(count)]:
        fairy.close()
