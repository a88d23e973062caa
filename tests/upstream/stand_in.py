"""A pytest plugin for SQLAlchemy's own tests: QueuePool is poolproof.Pool there.

Loaded with ``-p stand_in`` before SQLAlchemy's test modules import anything. It writes
the outcome of each test, one line of JSON, to the file that STAND_IN_OUTCOMES names.
"""

from __future__ import annotations

import json
import os
import sys

import sqlalchemy
from sqlalchemy import pool

import poolproof

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


_outcomes: dict[str, str] = {}


def pytest_runtest_logreport(report):
    """Remember how a test has ended; a failure of its teardown counts."""
    if report.outcome != "passed" or report.when == "call":
        _outcomes[report.nodeid] = report.outcome


def pytest_sessionfinish():
    """Tell."""
    with open(os.environ["STAND_IN_OUTCOMES"], "w") as told:  # noqa: PTH123
        json.dump(_outcomes, told)
