"""ASGI applications, served in the test's own loop, and engines for them."""

from __future__ import annotations

import asyncio
import contextlib

import httpx
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.responses import PlainTextResponse

ONE = text("select 1")


@contextlib.asynccontextmanager
async def lived(app):
    """Let an application start, and end with the block.

    Yields:
        What it has answered at its start; what it answers at its end is added.
    """
    said, heard = asyncio.Queue(), asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    life = asyncio.ensure_future(app(scope, said.get, heard.put))
    answers = []

    async def hear():
        await asyncio.wait(
            [life, hearing := asyncio.ensure_future(heard.get())],
            return_when=asyncio.FIRST_COMPLETED,
        )
        if not hearing.done():
            hearing.cancel()
            await life  # raises what it has raised
            raise AssertionError("it has ended, and said nothing")
        answers.append(await hearing)

    said.put_nowait({"type": "lifespan.startup"})
    await hear()
    try:
        yield answers
    finally:
        if not life.done():
            said.put_nowait({"type": "lifespan.shutdown"})
            await hear()
        await life


@contextlib.asynccontextmanager
async def served(app, *, raises=True):
    """Yield a client of an application that has started.

    Args:
        app: The application.
        raises: Whether what it raises reaches the client's caller.
    """
    transport = httpx.ASGITransport(app, raise_app_exceptions=raises)
    async with (
        lived(app),
        httpx.AsyncClient(
            transport=transport, base_url="http://app", timeout=100
        ) as client,
    ):
        yield client


@pytest.fixture
def make(pg_url):
    """Return a function that makes engines as one does who knows nothing of us."""
    made = []

    def make(driver="asyncpg", size=1, **options):
        url = pg_url(driver)
        if driver == "asyncpg":  # it has another place for that
            url = url.difference_update_query(["application_name"])
        create = create_engine if driver == "psycopg2" else create_async_engine
        options = {"pool_size": size, "max_overflow": 0, **options}
        made.append(create(url, **options))
        return made[-1]

    yield make
    for engine in made:
        getattr(engine, "sync_engine", engine).dispose()


@pytest.fixture(params=["asyncpg", "psycopg", "psycopg2"])
def engine(request, make):
    """Make an engine of each kind, with a pool of two."""
    return make(request.param, 2)


@pytest.fixture
def async_engine(make):
    """Make an async engine with a pool of one."""
    return make()


def asking(engine):
    """Return an endpoint of the engine's own kind."""
    if hasattr(engine, "sync_engine"):

        async def ask(_request):
            async with engine.connect() as connection:
                return PlainTextResponse(str(await connection.scalar(ONE)))

    else:

        def ask(_request):
            with engine.connect() as connection:
                return PlainTextResponse(str(connection.scalar(ONE)))

    return ask


@contextlib.contextmanager
def exhausted(engine):
    """Let somebody of another thread hold all there is of a pool, however it is."""
    pool = getattr(engine, "sync_engine", engine).pool
    tickets = [pool._gate.acquire() for _ in range(pool.size())]
    assert all(tickets)
    try:
        yield
    finally:
        for ticket in tickets:
            pool._waiters.wake(ticket.vacate())


def asking_plain(engine):
    async def ask() -> int:
        async with engine.connect() as connection:
            return await connection.scalar(ONE)

    return ask
