"""A pytest plugin for SQLAlchemy's own tests: QueuePool is poolproof.Pool there.

Loaded with ``-p stand_in`` before SQLAlchemy's test modules import anything.
"""

from __future__ import annotations

import sys

import sqlalchemy
from outcomes import pytest_runtest_logreport, pytest_sessionfinish
from sqlalchemy import pool

import poolproof

__all__ = [
    "pytest_configure",
    "pytest_runtest_logreport",
    "pytest_sessionfinish",
]

QueuePool = pool.QueuePool


class StandIn(poolproof.Pool):
    """Our pool, with the two private names of QueuePool's that the tests look at."""

    @property
    def _overflow(self):
        return self.overflow()

    @property
    def _pool(self):
        return _Queue(self)


class _Queue:
    def __init__(self, owner):
        self._idle = owner._idle

    @property
    def queue(self):
        return list(self._idle.values())

    @queue.setter
    def queue(self, entries):
        """Entries without a connection, which two tests take out, may rest here."""

    def empty(self):
        return not self._idle


def pytest_configure():
    """Replace every name that means QueuePool."""
    assert sqlalchemy.create_engine  # its modules are there
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "sqlalchemy":
            for word, value in list(vars(module).items()):
                if value is QueuePool:
                    setattr(module, word, StandIn)
