"""Chooses from a test's parameters those that `make test` runs; the others soak.

A test of the pool that runs with each driver says one thing three times: the driver
is no part of what it promises. One represents the others then, another for each test
and each row of its other parameters: so each driver has its share of what a file
promises, and a run has the same as the one before. On a second interpreter one row of
a test represents the others, too. `make soak` runs what is left out, `make matrix` all.
"""

from __future__ import annotations

import os
import zlib
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

# By a parameter's name, what a caller sets who has chosen for himself.
AXES = {
    "dbapi": "POOLPROOF_TEST_DBAPIS",
    "driver": "POOLPROOF_TEST_DRIVERS",
    "async_driver": "POOLPROOF_TEST_DRIVERS",
    "libpq": "POOLPROOF_TEST_DRIVERS",
    "engine": "POOLPROOF_TEST_DRIVERS",
}
# Where what a driver says and does is what is tested.
OF_DRIVERS = {"dialect", "doctor", "driver", "drivers", "faults"}
# Of each test a single one, where another interpreter has had all.
ONE_EACH = os.environ.get("POOLPROOF_TEST_ROWS") == "one"


def mark_represented(items: Iterable[pytest.Item]) -> None:
    """Mark as soak whom another of the same test represents.

    Args:
        items: All tests, in the order in which they were found.
    """
    rows: defaultdict[tuple[str, str], list[pytest.Item]] = defaultdict(list)
    for item in items:
        if not (item.get_closest_marker("soak") or item.get_closest_marker("each")):
            rows[_row(item)].append(item)
    before: defaultdict[str, int] = defaultdict(int)
    for (test, _), members in rows.items():
        turn = zlib.crc32(test.encode()) + before[test]
        before[test] += 1
        chosen = members[turn % len(members)]
        for item in members:
            if item is not chosen:
                item.add_marker(pytest.mark.soak)
                item.add_marker(pytest.mark.represented)


def _row(item: pytest.Item) -> tuple[str, str]:
    """Name what represent each other: their test, and the parameters they share."""
    test, _, _ = item.nodeid.partition("[")
    if not hasattr(item, "callspec") or ONE_EACH:
        return test, ""
    shared = f"-{item.callspec.id}-"
    if item.path.parent.name not in OF_DRIVERS:
        for axis, variable in AXES.items():
            value = item.callspec.params.get(axis)
            if isinstance(value, str) and variable not in os.environ:
                shared = shared.replace(f"-{value}-", "-*-")
    return test, shared
