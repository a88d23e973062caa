"""Async engines on a real server."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

import poolproof


@pytest.fixture(params=["asyncpg", "psycopg", "poolproof"])
def async_driver(request):
    """Name a driver of asyncio's."""
    return request.param


@pytest.fixture
def make_async(pg_url, async_driver):
    """Return a function that makes async engines with `AsyncPool`."""
    made = []

    def make(url=None, **options):
        options.setdefault("poolclass", poolproof.AsyncPool)
        url = url or pg_url(async_driver)
        if async_driver == "asyncpg" and "application_name" in url.query:
            name = url.query["application_name"]
            url = url.difference_update_query(["application_name"])
            settings = {"application_name": name}
            options.setdefault("connect_args", {"server_settings": settings})
        engine = create_async_engine(url, **options)
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.sync_engine.dispose()
