"""SQLAlchemy's tests of dialects, with `postgresql+poolproof`.

Its compliance suite, and its own tests of PostgreSQL. The tests that do not pass stand,
each with its reason, in docs/driver.md; the page and what is found here are equal, or
this fails.
"""

from __future__ import annotations

from collections import Counter

import pytest

from plugins import upstream
from plugins.cluster import Cluster
from plugins.debian_server import newest_binaries
from plugins.server import Observer, running

PLACES = {
    "compliance": ("test/dialect/test_suite.py", 1800),
    "postgresql": ("test/dialect/postgresql", 9000),
}
SECONDS = 3000

pytestmark = [pytest.mark.soak, pytest.mark.timeout(2 * SECONDS)]


@pytest.fixture(scope="module")
def server(cluster_templates):
    """Run a server with the extensions, and with transactions in two phases."""
    settings = {"max_prepared_transactions": "10"}
    yield from running(Cluster(newest_binaries(), settings=settings))


@pytest.fixture
def database(server):
    """Name a database as SQLAlchemy's tests take it, made anew."""
    watching = Observer(server)
    try:
        extensions = ("hstore", "citext")
        yield upstream.fresh_database(server, watching, "poolproof", *extensions)
    finally:
        watching.close()


@pytest.mark.parametrize("place", PLACES)
def test_they_pass_but_for_those_of_the_page(database, tmp_path, place):
    files, least = PLACES[place]
    found, said = upstream.outcomes(
        database, (files,), "as_psycopg", tmp_path / "outcomes", seconds=SECONDS
    )
    ran = Counter(found.values())
    assert ran["passed"] > least, ran
    failed = {
        upstream.named(node) for node, outcome in found.items() if outcome == "failed"
    }
    listed = upstream.listed("driver.md")
    ours = {
        name for name in listed if (name[0] == "test_suite") == (place == "compliance")
    }
    assert failed == ours, said
