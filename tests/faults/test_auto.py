"""``import poolproof.auto``: the same for every engine of a process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from poolproof import auto

ENGINES = """
import logging
logging.basicConfig(format="%(message)s")
import sqlalchemy as sa
from sqlalchemy import create_engine as early
from sqlalchemy.ext.asyncio import create_async_engine
before = early("sqlite:////tmp/never-opened.db")
import poolproof.auto
import importlib
importlib.reload(poolproof.auto)

def name(engine):
    hooks = len(list(engine.dialect.dispatch.handle_error))
    pool = type(engine.pool)
    print(pool.__module__.split(".")[0] + "." + pool.__name__, hooks)

url = "postgresql+psycopg2://u@h/d"
name(before)
name(early(url, pool_size=3))
name(sa.engine_from_config({"sqlalchemy.url": url}))
name(early(url + "?plugin=poolproof"))
name(early(url, plugins=["poolproof"]))
name(early(url, poolclass=sa.NullPool))
name(early("sqlite://"))
for driver in ("psycopg", "asyncpg"):
    name(create_async_engine(f"postgresql+{driver}://u@h/d").sync_engine)
"""

WITH_IT = """\
sqlalchemy.QueuePool 0
poolproof.Pool 1
poolproof.Pool 1
poolproof.Pool 1
poolproof.Pool 1
sqlalchemy.NullPool 1
sqlalchemy.SingletonThreadPool 1
poolproof.AsyncPool 1
poolproof.AsyncPool 1
"""

WITHOUT_IT = """\
sqlalchemy.QueuePool 0
sqlalchemy.QueuePool 0
sqlalchemy.QueuePool 0
poolproof.Pool 1
poolproof.Pool 1
sqlalchemy.NullPool 0
sqlalchemy.SingletonThreadPool 0
sqlalchemy.AsyncAdaptedQueuePool 0
sqlalchemy.AsyncAdaptedQueuePool 0
"""


def run(code, value):
    environment = {k: v for k, v in os.environ.items() if k != "POOLPROOF"}
    if value is not None:
        environment["POOLPROOF"] = value
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.parametrize(
    ("value", "on"),
    [
        *[("1", True), ("true", True), ("Yes", True), (" on ", True)],
        *[("", False), ("0", False), ("false", False), ("No", False), ("off", False)],
    ],
)
def test_the_variable_is_on_or_off(monkeypatch, value, on):
    monkeypatch.setenv("POOLPROOF", value)
    assert auto.enabled() is on


def test_every_engine_created_afterwards_gets_the_pool_and_the_guard():
    done = run(ENGINES, "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == WITH_IT
    assert "only the guard is installed" not in done.stderr


@pytest.mark.parametrize("value", [None, "0"])
def test_without_the_variable_nothing_changes(value):
    done = run(ENGINES, value)
    assert done.returncode == 0, done.stderr
    assert done.stdout == WITHOUT_IT


def test_another_value_is_refused_with_what_is_allowed():
    done = run("import poolproof.auto", "maybe")
    assert done.returncode != 0
    assert (
        "POOLPROOF='maybe' is not understood: allowed are 1, true, yes, on "
        "and 0, false, no, off" in done.stderr
    )


def test_a_sqlalchemy_without_that_place_is_refused_with_a_sentence():
    code = (
        "from sqlalchemy.engine import URL\n"
        "del URL._instantiate_plugins\n"
        "import poolproof.auto"
    )
    done = run(code, "1")
    assert done.returncode != 0
    assert "poolproof.auto does not know this SQLAlchemy" in done.stderr
