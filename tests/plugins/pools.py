"""The two pools under one contract, over scripted drivers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.pool import QueuePool

import poolproof
from plugins.dbapi import SocketDBAPI, StubDBAPI
from plugins.threads import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.pool import Pool

    MakePool = Callable[..., QueuePool]


# Without one of them where another interpreter has had both.
DBAPIS = os.environ.get("POOLPROOF_TEST_DBAPIS", "plain,socket").split(",")


@pytest.fixture(params=DBAPIS)
def dbapi(request: pytest.FixtureRequest) -> Iterator[StubDBAPI]:
    """Script a driver: one that has no descriptor, and one whose descriptor is real."""
    stub = StubDBAPI() if request.param == "plain" else SocketDBAPI()
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


def rest(pool: Pool, count: int) -> None:
    """Have so many connections rest in the pool: check them out, and in again."""
    for fairy in [pool.connect() for _ in range(count)]:
        fairy.close()
