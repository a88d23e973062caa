"""SQLAlchemy's own tests of pools, reconnecting and executing, with QueuePool replaced.

They come from SQLAlchemy's source archive of the version that is installed, are fetched
by tools/sqlalchemy_suite.py, and run in a pytest of their own. The tests that differ on
purpose stand, each with its reason, in docs/differences.md; the page and what is found
here are equal, or this fails.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tools"))

import sqlalchemy_suite  # noqa: E402 - found by the line above

FILES = ("test_pool", "test_reconnect", "test_execute")
ROW = re.compile(r"^\| `(\w+)::(\w+)::(\w+)` \| \S.* \|$", re.MULTILINE)
SECONDS = 600

pytestmark = [pytest.mark.soak, pytest.mark.timeout(2 * SECONDS)]


def differing():
    """Return the tests that the page lists, as (file, class, test)."""
    page = (CHECKOUT / "docs" / "differences.md").read_text()
    return set(ROW.findall(page))


def named(node):
    """Name a test without its parameters, and its class without the database's name."""
    file, kind, test = node.split("::")
    return Path(file).stem, kind.split("_")[0], test.split("[")[0]


@pytest.fixture(params=["sqlite", "psycopg2", "psycopg", "pg8000"])
def database(request):
    """Name a database as SQLAlchemy's tests take it; its schemas are made anew."""
    if request.param == "sqlite":
        return "sqlite:///:memory:"
    # The embedded server lacks the extensions that SQLAlchemy's tests begin with.
    server = request.getfixturevalue("debian_pg")
    observer = request.getfixturevalue("debian_observer")
    observer.rows("drop database if exists upstream (force)")
    observer.rows("create database upstream")
    url = server.url(request.param).set(database="upstream", query={})
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        for name in ("test_schema", "test_schema_2"):
            connection.execute(sqlalchemy.schema.CreateSchema(name))
    engine.dispose()
    return url.render_as_string(hide_password=False)


def outcomes(database, tmp_path):
    """Run the tests; return how each has ended, and what was said of them."""
    source = sqlalchemy_suite.suite(sqlalchemy.__version__)
    told = tmp_path / "outcomes"
    # -s leaves the installed SQLAlchemy in use, not the one beside the tests.
    pytest_ = (sys.executable, "-s", "-m", "pytest", "-q", "--tb=short")
    without = (f"-pno:{name}" for name in ("randomly", "xdist", "cacheprovider"))
    done = subprocess.run(
        [
            *(*pytest_, "--disable-warnings", "-p", "stand_in", *without),
            *("--dburi", database, *(f"test/engine/{name}.py" for name in FILES)),
        ],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parent),
            "STAND_IN_OUTCOMES": str(told),
        },
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return json.loads(told.read_text()), done.stdout


def test_they_pass_but_for_those_that_differ_on_purpose(database, tmp_path):
    found, said = outcomes(database, tmp_path)
    ran = Counter(found.values())
    assert ran["passed"] > 300, ran
    failed = {named(node) for node, outcome in found.items() if outcome == "failed"}
    listed = differing()
    if database.startswith("sqlite"):  # some of them are PostgreSQL's alone
        listed &= failed
    assert failed == listed, said
