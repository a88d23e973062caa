"""Engines over real servers, pools over a scripted one, and no leaks."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine

import poolproof
from plugins.dbapi import SocketDBAPI
from plugins.outages import Server


@pytest.fixture(autouse=True)
def _no_leaks(no_leaks):
    return no_leaks


@pytest.fixture
def engine_of():
    """Make engines over `poolproof.Pool`; dispose of them at the end."""
    made = []

    def make(url, **parameters):
        parameters.setdefault("poolclass", poolproof.Pool)
        if url.drivername.endswith("pg8000"):
            # Where TLS is asked for, a pg8000 that fails leaves its socket open to the
            # collector, which warns.
            arguments = parameters.setdefault("connect_args", {})
            arguments.setdefault("ssl_context", False)
        engine = create_engine(url, **parameters)
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.dispose()


@pytest.fixture
def server():
    """Script a server that is away."""
    return Server()


@pytest.fixture
def dbapi(server):
    """Script a driver that connects to it."""
    stub = SocketDBAPI()
    stub.script["connect"] = server.connect
    yield stub
    stub.script.clear()
    for connection in list(stub.open.values()):
        connection.close()


@pytest.fixture
def make_pool(dbapi):
    """Make pools over the scripted driver; dispose of them at the end."""
    made = []

    def make(**parameters):
        parameters = {"pool_size": 20, "max_overflow": 0, **parameters}
        pool = poolproof.Pool(dbapi.connect, **parameters)
        made.append(pool)
        return pool

    yield make
    for pool in made:
        pool.dispose()
