"""Every pool test leaves nothing behind."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_leaks(no_leaks):
    return no_leaks


class Clock:
    """Stands in for the module ``time`` in SQLAlchemy's records; moved by hand."""

    def __init__(self):
        self.now = 1_000_000.0

    def time(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    """Tell the records the time; it moves only when the test says so."""
    stopped = Clock()
    monkeypatch.setattr("sqlalchemy.pool.base.time", stopped)
    return stopped
