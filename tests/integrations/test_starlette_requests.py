"""What becomes of a request to Starlette or FastAPI: 503, its scope, metrics."""

from __future__ import annotations

import asyncio
import re
import time

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse
from prometheus_client.parser import text_string_to_metric_families as parse
from sqlalchemy import exc
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import sessionmaker
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute

import poolproof
from metrics.test_prometheus import values
from plugins.asgi import asking, asking_plain, exhausted, served
from poolproof import _log
from poolproof.integrations import starlette as integration


def test_an_exhausted_pool_is_answered_with_503_where_that_is_asked_for(engine):
    app = Starlette(routes=[Route("/", asking(engine))])
    integration.init_app(app, engine, pool_timeout=0.1, answer_503=True, retry_after=4)

    async def main():
        async with served(app) as client:
            with exhausted(engine):
                answer = await client.get("/")
            assert answer.status_code == 503
            assert answer.headers["Retry-After"] == "4"
            assert answer.text == "No database connection was free in time."
            assert (await client.get("/")).text == "1"

    asyncio.run(main())


def test_an_outage_is_answered_with_503_as_well(refusing):
    away = create_async_engine(refusing.url("asyncpg"))
    app = Starlette(routes=[Route("/", asking(away))])
    integration.init_app(app, away, answer_503=True, fail_fast_after=1)

    async def main():
        async with served(app) as client:
            with pytest.raises(OSError, match=r"refused|failed"):  # as asyncpg has it
                await client.get("/")
            assert (await client.get("/")).status_code == 503

    asyncio.run(main())


def test_the_applications_own_page_for_503_is_shown(async_engine):
    """That of FastAPI, one for all errors, and one for 503; of both kinds."""
    integration_options = {"pool_timeout": 0.05, "answer_503": True}
    shown = []
    for handlers in (
        {},
        {HTTPException: lambda _r, error: PlainTextResponse("sync", error.status_code)},
        {503: _own_page},
    ):
        app = FastAPI(exception_handlers=handlers)
        app.add_api_route("/", asking_plain(async_engine))
        integration.init_app(app, async_engine, **integration_options)

        async def main(app=app):
            async with served(app) as client:
                with exhausted(async_engine):
                    return await client.get("/")

        answer = asyncio.run(main())
        assert answer.status_code == 503
        shown.append(answer.text)
    assert shown == [
        '{"detail":"No database connection was free in time."}',
        "sync",
        '{"full":"1"}',
    ]


async def _own_page(_request, error):
    return JSONResponse({"full": error.headers["Retry-After"]}, 503)


def test_a_handler_of_the_applications_goes_before(async_engine):
    app = Starlette(
        routes=[Route("/", asking(async_engine))],
        exception_handlers={
            exc.TimeoutError: lambda _r, _error: PlainTextResponse("mine", 500)
        },
    )
    integration.init_app(app, async_engine, pool_timeout=0.05, answer_503=True)

    async def main():
        async with served(app) as client:
            with exhausted(async_engine):
                assert (await client.get("/")).text == "mine"

    asyncio.run(main())


def test_it_raises_by_default_and_where_half_an_answer_has_gone(async_engine, make):
    other = make()

    async def rows():
        yield b"one"
        async with other.connect():
            yield b"two"

    async def stream(_request):
        return StreamingResponse(rows())

    plain = Starlette(routes=[Route("/", asking(async_engine))])
    integration.init_app(plain, async_engine, pool_timeout=0.05)
    streaming = Starlette(routes=[Route("/", stream)])
    integration.init_app(streaming, other, pool_timeout=0.05, answer_503=True)

    async def main():
        for app, engine in ((plain, async_engine), (streaming, other)):
            async with served(app) as client:
                with exhausted(engine), pytest.raises(poolproof.PoolTimeout):
                    await client.get("/")

    asyncio.run(main())


def test_what_is_answered_with_503_is_explained_in_the_log_now_and_then(
    async_engine, caplog, monkeypatch
):
    app = Starlette(routes=[Route("/", asking(async_engine))])
    integration.init_app(app, async_engine, pool_timeout=0.05, answer_503=True)
    moment = time.monotonic()

    async def main():
        async with served(app) as client:
            with exhausted(async_engine):
                for seconds in (0, 1, 2, 11):
                    now = moment + seconds
                    # What asks is ours alone: asyncio has its own name for the clock.
                    with monkeypatch.context() as patched:
                        clock = _Clock(now)
                        patched.setattr(_log, "time", clock)
                        assert (await client.get("/")).status_code == 503

    asyncio.run(main())
    words = "poolproof: a request was answered with 503: pool "
    first, second = (one for one in caplog.messages if one.startswith(words))
    for line in (first, second):
        assert re.search(r"gave no connection within \d+\.\d+ s", line)
    assert "more like it" not in first
    assert second.endswith(" (2 more like it since the last line)")


class _Clock:
    def __init__(self, now):
        self.now = now

    def monotonic(self):
        return self.now


@pytest.mark.parametrize("is_accepted", [False, True])
@pytest.mark.parametrize("can_refuse", [False, True])
def test_a_websocket_is_told_to_try_again(async_engine, is_accepted, can_refuse):
    async def talk(websocket):
        if is_accepted:
            await websocket.accept()
        async with async_engine.connect():
            pytest.fail("there is none")

    app = Starlette(routes=[WebSocketRoute("/", talk)])
    integration.init_app(app, async_engine, pool_timeout=0.05, answer_503=True)
    sent = []
    scope = {
        "type": "websocket",
        "path": "/",
        "headers": [],
        "query_string": b"",
        "extensions": {"websocket.http.response": {}} if can_refuse else {},
    }

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    async def main():
        with exhausted(async_engine):
            await app(scope, receive, send)

    asyncio.run(main())
    if is_accepted:
        assert sent.pop(0)["type"] == "websocket.accept"
    if can_refuse and not is_accepted:
        assert [each["type"].rpartition(".")[2] for each in sent] == ["start", "body"]
        assert sent[0]["status"] == 503
        assert (b"retry-after", b"1") in sent[0]["headers"]
    else:
        assert sent == [{"type": "websocket.close", "code": 1013}]


# --- scopes and metrics ---------------------------------------------------------------


def test_a_request_is_in_the_scope_of_its_endpoint_and_none_after(async_engine):
    seen = []

    async def look(engine=async_engine):
        async with engine.connect():
            (holder,) = poolproof.snapshot(engine).holders
            seen.append(holder.scope)

    async def page(request):
        await look()
        return PlainTextResponse(request.path_params["number"])

    async def included() -> str:
        await look()
        return "x"

    router = APIRouter(prefix="/inner")
    router.add_api_route("/{number}", included)

    class Before:
        """A middleware of the application's, with a task of its own."""

        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            if scope["type"] == "http":
                await look()
            await asyncio.create_task(self.app(scope, receive, send))

    class Outside(Before):
        """One that stands before ours, and sees what the router has found."""

        async def __call__(self, scope, receive, send):
            await self.app(scope, receive, send)
            assert scope.get("path") in {None, "/nowhere"} or "endpoint" in scope

    app = FastAPI()
    app.include_router(router)
    app.router.routes += [
        Route("/page/{number}", page),
        Mount("/below", routes=[Route("/page/{number}", page)]),
    ]
    app.add_middleware(Before)
    integration.init_app(app, async_engine)
    app.add_middleware(Outside)

    async def main():
        async with served(app) as client:
            for path in ("/page/1", "/page/2", "/inner/3", "/below/page/4", "/nowhere"):
                status = (await client.get(path)).status_code
                assert status == (404 if path == "/nowhere" else 200)
            await look()

    asyncio.run(main())
    here = page.__qualname__.rpartition(".")[0]
    here = f"{__name__}.{here}"
    assert seen == [
        *("unrouted", f"{here}.page") * 2,
        *("unrouted", f"{here}.included"),
        *("unrouted", f"{here}.page"),
        *("unrouted", None),
    ]


def test_a_sync_endpoint_and_a_middleware_of_starlettes_are_in_it_too(make):
    engine = make("psycopg2", 2)
    seen = []

    def page() -> str:
        with engine.connect():
            (holder,) = poolproof.snapshot(engine).holders
            seen.append(holder.scope.rpartition(".")[2])
        return "x"

    async def passing(request, call_next):
        return await call_next(request)

    app = FastAPI()
    app.add_api_route("/", page)
    app.add_middleware(BaseHTTPMiddleware, dispatch=passing)
    integration.init_app(app, sessionmaker(engine))

    async def main():
        async with served(app) as client:
            assert (await client.get("/")).status_code == 200

    asyncio.run(main())
    assert seen == ["page"]


def test_the_metrics_are_answered_at_their_path(async_engine):
    app = FastAPI()
    app.add_api_route("/", asking_plain(async_engine))
    integration.init_app(app, async_engine)
    integration.add_metrics(app)
    with pytest.raises(ValueError, match="path begins with /"):
        integration.add_metrics(app, "metrics")

    async def main():
        async with served(app) as client:
            for _ in range(3):
                assert (await client.get("/")).status_code == 200
            return await client.get("/metrics")

    answer = asyncio.run(main())
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    found = list(parse(answer.text))
    scope = f"{asking_plain.__module__}.asking_plain.<locals>.ask"
    (count,) = values(found, "poolproof_hold_seconds_count", scope=scope)
    assert count >= 3
    assert "/metrics" not in app.openapi()["paths"]
