"""Engines over both pools, a clock that is moved by hand, and no leaks."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import create_engine

from plugins.threads import PATIENCE
from poolproof.pool import maintenance


@pytest.fixture(autouse=True)
def _no_leaks(no_leaks):
    return no_leaks


@pytest.fixture
def make_engine(pool_class):
    """Make engines over the pool under test; dispose of them at the end."""
    made = []

    def make(url, **parameters):
        parameters.setdefault("poolclass", pool_class)
        engine = create_engine(url, **parameters)
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
