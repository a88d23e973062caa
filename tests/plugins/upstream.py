"""Runs SQLAlchemy's own tests, of the version that is installed, in a pytest of theirs.

They come from SQLAlchemy's source archive, which tools/sqlalchemy_suite.py fetches.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy

if TYPE_CHECKING:
    from plugins.cluster import Cluster
    from plugins.server import Observer

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tools"))

import sqlalchemy_suite  # noqa: E402 - found by the line above

ROW = re.compile(
    r"^\| `(\w+)::(\w+)::(\w+)` \|(?: ([\w, ]*) \|)? \S.* \|$", re.MULTILINE
)


def listed(page: str, section: str = "", driver: str = "") -> set[tuple[str, ...]]:
    """Return the tests that a page of docs/ lists, as (file, class, test).

    Args:
        page: The page.
        section: The heading of the list; empty for the whole page.
        driver: Leaves out what is listed for other drivers alone.
    """
    text = (CHECKOUT / "docs" / page).read_text()
    if section:
        (text,) = re.findall(
            rf"^#+ {re.escape(section)}$(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL
        )
    return {
        (file, kind, test)
        for file, kind, test, drivers in ROW.findall(text)
        if not drivers.strip() or not driver or driver in drivers.split(", ")
    }


def named(node: str) -> tuple[str, str, str]:
    """Name a test without its parameters, and its class without the database's name."""
    file, kind, test = node.split("::")
    return Path(file).stem, kind.split("_")[0], test.split("[")[0]


def fresh_database(
    server: Cluster, observer: Observer, driver: str, *extensions: str
) -> str:
    """Make the database that SQLAlchemy's tests need; return its URL."""
    observer.rows("drop database if exists upstream (force)")
    observer.rows("create database upstream")
    # As README.unittests asks: parts of words are those of English.
    observer.rows(
        "alter database upstream set default_text_search_config = 'pg_catalog.english'"
    )
    url = server.url(driver).set(database="upstream", query={})
    # Whichever driver it is for: some want a loop.
    engine = sqlalchemy.create_engine(url.set(drivername="postgresql+psycopg2"))
    with engine.begin() as connection:
        for name in ("test_schema", "test_schema_2"):
            connection.execute(sqlalchemy.schema.CreateSchema(name))
        for name in extensions:
            connection.execute(sqlalchemy.text(f"create extension {name}"))
        # One that they take for granted, whichever the machine has.
        connection.execute(
            sqlalchemy.text('create collation if not exists "en_US" from "C"')
        )
    engine.dispose()
    # They put it into other URLs; the server asks for none.
    url = url.set(password="unused")  # noqa: S106 - it is none
    return url.render_as_string(hide_password=False)


def outcomes(
    database: str, files: tuple[str, ...], plugin: str, told: Path, *, seconds: float
) -> tuple[dict[str, str], str]:
    """Run their tests with a plugin of tests/upstream.

    Returns:
        How each has ended, and what was said of them.
    """
    source = sqlalchemy_suite.suite(sqlalchemy.__version__)
    # -s leaves the installed SQLAlchemy in use, not the one beside the tests.
    pytest_ = (sys.executable, "-s", "-m", "pytest", "-q", "--tb=short")
    without = (f"-pno:{name}" for name in ("randomly", "xdist", "cacheprovider"))
    upstream = str(CHECKOUT / "tests" / "upstream")
    paths = [upstream, *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [
            *(*pytest_, "--disable-warnings", "-p", plugin, *without),
            *("--dburi", database, *files),
        ],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "OUTCOMES": str(told),
        },
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return json.loads(told.read_text()), done.stdout
