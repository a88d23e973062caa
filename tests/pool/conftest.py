"""Every pool test leaves nothing behind."""

from __future__ import annotations

import time

import pytest

from poolproof.pool import maintenance


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


@pytest.fixture
def short_lives(monkeypatch):
    """Let connections grow old sooner than a pool may be asked for."""

    def live(seconds):
        monkeypatch.setattr(maintenance, "expiry", lambda _: time.monotonic() + seconds)

    return live
