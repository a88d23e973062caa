"""A stage of the drill on the tests' own server."""

from __future__ import annotations

import contextlib

import pytest

from plugins.asgi import async_engine, engine, make  # noqa: F401 - fixtures
from plugins.celeries import broker, celery  # noqa: F401 - fixtures
from plugins.flasks import app, driven, order  # noqa: F401 - fixtures
from plugins.sessions import alone  # noqa: F401 - a fixture
from poolproof.drill.stage import Stage
from poolproof.drill.table import Table
from poolproof.drill.target import Target


@pytest.fixture
def make_stage(pg_url):
    """Return a function that makes a stage, with a table of its own."""
    with contextlib.ExitStack() as stack:

        def make(driver="psycopg2", pool="poolproof"):
            url = pg_url(driver).render_as_string(hide_password=False)
            target = Target.parse(url)
            table = stack.enter_context(Table(target, "psycopg2"))
            return Stage(
                target=target,
                driver=driver,
                pool=pool,
                table=table.name,
                seed=1,
                trial=0,
            )

        yield make
