"""Starlette and FastAPI as they are: the pools, and the application's life."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time

import pytest
from sqlalchemy import create_engine, event, exc, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool
from starlette.applications import Starlette
from starlette.routing import Route

import poolproof
from plugins.asgi import ONE, asking, lived, served
from plugins.threads import eventually
from poolproof.integrations import starlette as integration


def test_every_engine_has_the_pool_of_its_kind_and_is_guarded(engine):
    app = Starlette(routes=[Route("/", asking(engine))])
    integration.init_app(app, engine, pool_timeout=7, hold_timeout=9)
    kind = poolproof.AsyncPool if hasattr(engine, "sync_engine") else poolproof.Pool
    assert type(engine.pool) is kind
    assert (engine.pool.size(), engine.pool.timeout()) == (2, 7)
    assert engine.pool.settings.hold_timeout == 9
    assert engine.pool.origins["pool_timeout"] == "pool_timeout (argument of init_app)"

    async def main():
        async with served(app) as client:
            assert (await client.get("/")).text == "1"

    asyncio.run(main())


def test_the_engines_own_options_and_listeners_are_kept(async_engine):
    heard = []
    event.listen(async_engine.sync_engine, "checkout", lambda *_: heard.append(1))
    app = Starlette(routes=[Route("/", asking(async_engine))])
    integration.init_app(app, async_sessionmaker(async_engine))
    assert type(async_engine.pool) is poolproof.AsyncPool

    async def main():
        async with served(app) as client:
            assert (await client.get("/")).text == "1"

    asyncio.run(main())
    assert heard == [1]


def test_a_pool_that_was_chosen_stays():
    chosen = create_async_engine("postgresql+asyncpg://h/d", poolclass=NullPool)
    integration.init_app(Starlette(), [chosen])
    assert type(chosen.pool) is NullPool


def test_what_does_not_exist_is_refused(async_engine, monkeypatch):
    app = Starlette()
    with pytest.raises(TypeError, match="no argument 'pool_sise'; did you mean pool_s"):
        integration.init_app(app, async_engine, pool_sise=2)
    with pytest.raises(TypeError, match=r"engines must be an engine, .* not str"):
        integration.init_app(app, "postgresql://")
    with pytest.raises(exc.ArgumentError, match="warm is 'two', but must be a whole"):
        integration.init_app(app, async_engine, warm="two")
    with pytest.raises(exc.ArgumentError, match="dispose_timeout is None, but must be"):
        integration.init_app(app, async_engine, dispose_timeout=None)
    monkeypatch.setenv("POOLPROOF_ANSWER_503", "perhaps")
    with pytest.raises(exc.ArgumentError, match=r"^POOLPROOF_ANSWER_503 \(environ"):
        integration.init_app(app, async_engine)
    assert app.user_middleware == []


def test_a_knob_of_every_pool_is_one_of_asyncios(async_engine):
    integration.init_app(Starlette(), async_engine, idle_hold_timeout=2)
    assert async_engine.pool.settings.idle_hold_timeout == 2


def test_a_second_call_is_refused(async_engine):
    app = Starlette()
    integration.init_app(app, async_engine)
    with pytest.raises(RuntimeError, match="already"):
        integration.init_app(app, async_engine)


def test_without_the_framework_the_error_names_the_extra():
    script = (
        "import sys; sys.modules['starlette'] = None\n"
        "try: import poolproof.integrations.starlette\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("poolproof.integrations.starlette needs Starlette: ")


# --- its life -------------------------------------------------------------------------


def test_connections_are_opened_before_the_first_request_and_end_with_the_last(
    engine, observer
):
    app = Starlette(routes=[Route("/", asking(engine))])
    integration.init_app(app, engine, warm=2)
    before = engine.pool
    found = "select pid from pg_stat_activity where pid = any(%s)"

    async def main():
        async with lived(app) as answers:
            stats = engine.pool.stats()
            assert (stats.idle, stats.in_use) == (2, 0)
            pids = await backends(engine)
            assert len(observer.rows(found, pids)) == 2
        assert [each["type"] for each in answers] == [
            "lifespan.startup.complete",
            "lifespan.shutdown.complete",
        ]
        assert before.stats().idle == 0
        return pids

    pids = asyncio.run(main())
    eventually(lambda: not observer.rows(found, pids))


async def backends(engine):
    """Return the backends of the two connections that rest."""
    pid = text("select pg_backend_pid()")
    if hasattr(engine, "sync_engine"):
        async with engine.connect() as one, engine.connect() as two:
            return [await one.scalar(pid), await two.scalar(pid)]
    with engine.connect() as one, engine.connect() as two:
        return [one.scalar(pid), two.scalar(pid)]


def test_more_than_a_pool_keeps_is_refused(async_engine):
    with pytest.raises(exc.ArgumentError, match="warm is 2 and pool_size is 1"):
        integration.init_app(Starlette(), async_engine, warm=2)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg2"])
def test_an_application_starts_without_its_database(refusing, driver, caplog):
    make = create_engine if driver == "psycopg2" else create_async_engine
    away = make(refusing.url(driver).set(password="s3cr3t"))  # noqa: S106
    app = Starlette()
    integration.init_app(app, away, warm=1, pool_timeout=0.2, checkout_timeout=0.5)

    async def main():
        async with lived(app) as answers:
            assert answers == [{"type": "lifespan.startup.complete"}]

    asyncio.run(main())
    (line,) = (one for one in caplog.messages if "was not opened ahead" in one)
    assert line.startswith("poolproof: the pool of postgresql+")
    assert "s3cr3t" not in line


def test_its_own_life_goes_first_at_the_start_and_last_but_one_at_the_end(async_engine):
    from fastapi import FastAPI  # a third of a second, which few workers need

    seen = []

    @contextlib.asynccontextmanager
    async def life(_app):
        seen.append(async_engine.pool.stats().idle)
        yield
        async with async_engine.connect() as connection:
            seen.append(await connection.scalar(ONE))

    app = FastAPI(lifespan=life)
    integration.init_app(app, async_engine, warm=1)
    before = async_engine.pool

    async def main():
        async with lived(app):
            seen.append(async_engine.pool.stats().idle)

    asyncio.run(main())
    assert seen == [0, 1, 1]
    assert before.stats().idle == 0
    assert before.stats().checkouts_total == 2


def test_an_engine_that_its_own_life_makes_is_found(pg_url, observer):
    name = "made_in_its_life"

    @contextlib.asynccontextmanager
    async def life(app):
        app.state.engine = create_async_engine(
            pg_url("psycopg").update_query_dict({"application_name": name}),
            poolclass=poolproof.AsyncPool,
        )
        async with app.state.engine.connect():
            pass
        yield

    app = Starlette(lifespan=life)
    integration.init_app(app)
    found = "select 1 from pg_stat_activity where application_name = %s"

    async def main():
        async with lived(app):
            assert len(observer.rows(found, name)) == 1

    asyncio.run(main())
    eventually(lambda: not observer.rows(found, name))


def test_a_pool_that_does_not_end_holds_up_nobody(make, caplog):
    stuck = make("psycopg2")
    app = Starlette()
    integration.init_app(app, stuck, dispose_timeout=0.1)
    with stuck.connect():
        pass
    go = []

    @event.listens_for(stuck, "close")
    def never(*_):
        while not go:
            time.sleep(0.01)

    async def main():
        async with lived(app) as answers:
            pass
        assert answers[-1] == {"type": "lifespan.shutdown.complete"}

    try:
        asyncio.run(main())
    finally:
        go.append(1)
    assert any("was not disposed of within 0.1 s" in one for one in caplog.messages)
