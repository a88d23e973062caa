"""What the tests of metrics share: engines of ours alone, nothing left behind."""

from __future__ import annotations

import pytest

import poolproof
from plugins.cluster import APPLICATION_NAME


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
