"""What the tests of metrics share: engines of ours alone, nothing left behind."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine

import poolproof
from plugins.cluster import APPLICATION_NAME
from plugins.threads import PATIENCE


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
def pool_class():
    return poolproof.Pool


@pytest.fixture
def dbapi(socket_dbapi):
    return socket_dbapi


@pytest.fixture
def make_engine():
    """Make engines over poolproof.Pool; dispose of them at the end."""
    made = []

    def make(url, **parameters):
        engine = create_engine(url, **{"poolclass": poolproof.Pool, **parameters})
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.dispose()


@pytest.fixture
def stub_engine(make_engine, dbapi):
    """Make engines over the scripted driver, without a first look at the server."""

    def make(**parameters):
        parameters.setdefault("pool_timeout", PATIENCE)
        return make_engine(
            "postgresql+psycopg2://127.0.0.1/stub",
            module=dbapi,
            _initialize=False,
            **parameters,
        )

    return make
