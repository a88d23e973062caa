"""What the plugins for SQLAlchemy's own tests share: how each test has ended."""

from __future__ import annotations

import json
import os

_ended: dict[str, str] = {}


def pytest_runtest_logreport(report):
    """Remember how a test has ended; a failure of its teardown counts."""
    if report.outcome != "passed" or report.when == "call":
        _ended[report.nodeid] = report.outcome


def pytest_sessionfinish():
    """Tell."""
    with open(os.environ["OUTCOMES"], "w") as told:  # noqa: PTH123
        json.dump(_ended, told)
