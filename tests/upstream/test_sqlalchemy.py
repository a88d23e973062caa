"""SQLAlchemy's own tests of pools, reconnecting and executing, with our pools.

They come from SQLAlchemy's source archive of the version that is installed, are fetched
by tools/sqlalchemy_suite.py, and run in a pytest of their own. The tests that differ on
purpose stand, each with its reason, in docs/differences.md; the page and what is found
here are equal, or this fails.
"""

from __future__ import annotations

from collections import Counter

import pytest

from plugins import upstream

FILES = tuple(
    f"test/engine/{name}.py" for name in ("test_pool", "test_reconnect", "test_execute")
)
ASYNC_FILES = tuple(
    f"test/ext/asyncio/{name}.py"
    for name in ("test_engine", "test_session", "test_scoping")
)
# Of the test on the page, which tells what kind of driver differs.
SYNC, ASYNC = "SQLAlchemy's own tests", "On drivers of asyncio"
SECONDS = 900

pytestmark = [pytest.mark.soak, pytest.mark.timeout(2 * SECONDS)]


@pytest.fixture
def database_of(request):
    """Name a database as SQLAlchemy's tests take it; its schemas are made anew."""

    def name(driver):
        if driver == "sqlite":
            return "sqlite:///:memory:"
        # The embedded server lacks the extensions that SQLAlchemy's tests begin with.
        server = request.getfixturevalue("debian_pg")
        observer = request.getfixturevalue("debian_observer")
        return upstream.fresh_database(server, observer, driver)

    return name


def failed_of(database, files, tmp_path, *, least):
    """Run tests; return those that failed, and what was said of them."""
    found, said = upstream.outcomes(
        database, files, "stand_in", tmp_path / "outcomes", seconds=SECONDS
    )
    ran = Counter(found.values())
    assert ran["passed"] > least, (ran, said)
    failed = {
        upstream.named(node) for node, outcome in found.items() if outcome == "failed"
    }
    return failed, said


@pytest.mark.parametrize(
    "driver", ["sqlite", "psycopg2", "psycopg", "pg8000", "poolproof"]
)
def test_they_pass_but_for_those_that_differ_on_purpose(database_of, driver, tmp_path):
    failed, said = failed_of(database_of(driver), FILES, tmp_path, least=300)
    listed = upstream.listed("differences.md", SYNC, driver)
    if driver == "sqlite":  # some of them are PostgreSQL's alone
        listed &= failed
    assert failed == listed, said


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg_async", "poolproof_async"])
def test_those_of_asyncio_pass_as_well(database_of, driver, tmp_path):
    files = (*FILES, *ASYNC_FILES)
    failed, said = failed_of(database_of(driver), files, tmp_path, least=400)
    assert failed == upstream.listed("differences.md", ASYNC, driver), said
