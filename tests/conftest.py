"""Loads the suite's plugins and marks each test by what it needs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

pytest_plugins = (
    "plugins.server",
    "plugins.debian_server",
    "plugins.leaks",
    "plugins.dbapi",
    "plugins.peers",
    "plugins.pools",
    "plugins.pooler",
    "plugins.pipelines",
)

MARKERS = {
    "pg": "needs PostgreSQL",
    "fork": "forks",
    "slow": "takes longer than a second",
    "timing": "measures time, and runs alone",
    "soak": "takes too long for every change: `make soak` runs it",
    "difference": "an intended difference from QueuePool",
}


def pytest_configure(config: pytest.Config) -> None:
    """Make the suite's markers known."""
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need a server."""
    for item in items:
        names = set(getattr(item, "fixturenames", ()))
        if names & {"pg", "debian_pg"}:
            item.add_marker(pytest.mark.pg)
