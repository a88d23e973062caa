"""Sessions on the server whose names an integration has made longer."""

from __future__ import annotations

import time

from plugins.cluster import APPLICATION_NAME

_QUERY = (
    "select application_name from pg_stat_activity"
    " where starts_with(application_name, %s)"
)


def all_are_gone(observer, *, seconds=10.0):
    """Wait until none of the tests' sessions is left; say whether that is so."""
    end = time.monotonic() + seconds
    while observer.rows(_QUERY, APPLICATION_NAME):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
