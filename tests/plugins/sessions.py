"""Sessions on the server whose names an integration has made longer."""

from __future__ import annotations

import time

import pytest

from plugins.cluster import APPLICATION_NAME

_QUERY = (
    "select application_name from pg_stat_activity"
    " where starts_with(application_name, %s)"
)


@pytest.fixture
def alone(observer):
    """End what earlier tests of this process have left on the server."""
    observer.rows(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where starts_with(application_name, %s)",
        APPLICATION_NAME,
    )
    assert all_are_gone(observer)


def all_are_gone(observer, *, seconds=10.0):
    """Wait until none of the tests' sessions is left; say whether that is so."""
    end = time.monotonic() + seconds
    while observer.rows(_QUERY, APPLICATION_NAME):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
