"""A pytest plugin for SQLAlchemy's own tests: its queue pools are poolproof's there.

Loaded with ``-p stand_in`` before SQLAlchemy's test modules import anything.
"""

from __future__ import annotations

import sys

import sqlalchemy
from outcomes import pytest_runtest_logreport, pytest_sessionfinish
from sqlalchemy import pool

import poolproof
from poolproof.dialect import aio, sync

__all__ = [
    "pytest_configure",
    "pytest_runtest_logreport",
    "pytest_sessionfinish",
]


class _Names:
    """The private names of a queue pool that the tests look at."""

    @property
    def _overflow(self):
        return self.overflow()

    @property
    def _max_overflow(self):
        return self.bounds[1]

    @_max_overflow.setter
    def _max_overflow(self, most):
        self.resize(self.size(), most)

    @property
    def _pool(self):
        return _Queue(self)


class StandIn(_Names, poolproof.Pool):
    """Our pool."""


class AsyncStandIn(_Names, poolproof.AsyncPool):
    """Our pool of asyncio's."""


class _Queue:
    def __init__(self, owner):
        self._idle = owner._idle
        self.use_lifo = owner._lifo

    @property
    def queue(self):
        return list(self._idle.values())

    @queue.setter
    def queue(self, entries):
        """Entries without a connection, which two tests take out, may rest here."""

    def empty(self):
        return not self._idle


STAND_INS = {pool.QueuePool: StandIn, pool.AsyncAdaptedQueuePool: AsyncStandIn}


def pytest_configure():
    """Replace every name that means a queue pool, and what our own dialect chooses."""
    assert sqlalchemy.create_engine  # its modules are there
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "sqlalchemy":
            for word, value in list(vars(module).items()):
                if isinstance(value, type) and value in STAND_INS:
                    setattr(module, word, STAND_INS[value])
    sync.PoolproofDialect.poolclass = StandIn
    aio.PoolproofDialectAsync.poolclass = AsyncStandIn
