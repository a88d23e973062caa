"""A pytest plugin for SQLAlchemy's own tests: `poolproof` counts as `psycopg` there.

They ask for drivers by name, where README.dialects has nothing else to offer: which of
them has ranges, gives addresses as objects, or has a cursor that the server keeps. What
is asked of psycopg is asked of ours. Loaded with ``-p as_psycopg``.
"""

from __future__ import annotations

from outcomes import pytest_runtest_logreport, pytest_sessionfinish

__all__ = [
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_runtest_logreport",
    "pytest_sessionfinish",
]

OURS, THEIRS = "poolproof", "psycopg"


def pytest_configure():
    """Answer in psycopg's place."""
    from sqlalchemy.testing import exclusions

    ask = exclusions.SpecPredicate.__call__

    def answer(self, config):
        name, _, driver = self.db.partition("+")
        if config is None or driver != THEIRS or config.db.driver != OURS:
            return ask(self, config)
        # A version of psycopg's is none of ours.
        return self.op is None and name in {"", config.db.name}

    exclusions.SpecPredicate.__call__ = answer


def pytest_collection_modifyitems(items):
    """Have the one test that asks a dialect for its driver ask the cursor instead."""
    for item in items:
        kind = getattr(item, "cls", None)
        if hasattr(kind, "_is_server_side"):
            kind._is_server_side = _is_server_side


def _is_server_side(self, cursor):
    return bool(getattr(cursor, "name", None))
