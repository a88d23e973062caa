"""Starlette and FastAPI: the pools of one application, from its start to its end.

    from poolproof.integrations import starlette as poolproof_starlette

    poolproof_starlette.init_app(app, engine)

All of it is one ASGI middleware, without tasks of its own: what is cancelled, and when,
is as it would be without.
"""

from __future__ import annotations

import inspect
import os
from typing import TYPE_CHECKING, Any

try:
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response
except ImportError as error:
    raise ImportError(
        "poolproof.integrations.starlette needs Starlette: "
        'pip install "starlette>=0.40"'
    ) from error

from sqlalchemy import exc

from poolproof import _checks
from poolproof._log import Log, Seldom
from poolproof.doctor.engines import is_engine, sync_engine
from poolproof.errors import BreakerOpen, PoolTimeout
from poolproof.integrations import options
from poolproof.integrations.engines import adopt
from poolproof.integrations.lifespan import Lifespan
from poolproof.metrics import scope as scopes
from poolproof.metrics.automatic import want
from poolproof.metrics.exposition import CONTENT_TYPE
from poolproof.metrics.wsgi import metrics_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Engine
    from starlette.applications import Starlette
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["add_metrics", "init_app"]

_log = Log("poolproof.integrations")
_UNROUTED = "unrouted"
_SCOPE_LONGEST = 200
# A request that is answered with 503 has cost little, and there may be many.
_SAID_EVERY_S = 10.0
_BUSY = "No database connection was free in time."
# Of a websocket: try again later (RFC 6455's registry).
_TRY_AGAIN_LATER = 1013
_REFUSES = "websocket.http.response"


def init_app(
    app: Starlette,
    engines: Any = None,
    *,
    warm: int = 0,
    dispose_timeout: float = 5.0,
    **pool_options: Any,
) -> None:
    """Put the pools and the guard under an application, and end them with it.

    For Starlette, FastAPI, and what else is made of them. Engines for which no
    ``poolclass`` was given get `poolproof.AsyncPool`, sync ones `poolproof.Pool`, with
    all their other options; every engine is guarded. What is done for a request is in
    the scope of its endpoint (`poolproof.scope`).

    Args:
        app: The application, before its first request.
        engines: An engine, sync or async, a `sessionmaker` or an `async_sessionmaker`
            that is bound to some, a `scoped_session`, or a list of those. None leaves
            engines as they are made, and looks after those on these pools.
        warm: How many connections of each pool are opened at the application's start,
            0 to `pool_size`. Where that fails it starts all the same.
        dispose_timeout: How long disposing of the pools may take at its end, in
            seconds, 0 or more.
        **pool_options: Options of the pool, as for `create_engine`; and ``answer_503``
            (an exhausted pool is answered with 503, off by default) with
            ``retry_after`` (seconds, 1). They go before ``POOLPROOF_*`` of the
            environment, and that before what the engine was made with.

    Raises:
        ArgumentError: A key or value that is wrong, by the key's name.
        TypeError: An option that does not exist, or engines of an unknown kind.
        RuntimeError: The application has begun, or it was done already.
    """
    chosen = options.read(pool_options, {}, os.environ)
    meaning = "a whole number, 0 or more"
    _checks.integer("warm", warm, minimum=0, meaning=meaning)
    meaning = "a number of seconds, 0 or more"
    name = "dispose_timeout"
    _checks.seconds(
        name, dispose_timeout, minimum=0, meaning=meaning, none_allowed=False
    )
    present: list[Any] = [one.cls for one in app.user_middleware]
    if _Middleware in present:
        msg = "poolproof is installed in this application already; pass all in one call"
        raise RuntimeError(msg)
    for slip in chosen.unknown:
        _log.warning("%s", slip)
    found = list(dict.fromkeys(_engines_of(engines)))
    lifespan = Lifespan(found, warm=warm, dispose_timeout=dispose_timeout)
    # What Starlette refuses after the first request comes before anything is changed.
    app.add_middleware(
        _Middleware,
        owner=app,
        lifespan=lifespan,
        retry_after=chosen.retry_after if chosen.answer_503 else None,
    )
    for engine in found:
        try:
            adopt(engine, chosen.pool, places=chosen.places)
        except exc.ArgumentError as error:
            said = options.blamed(error, chosen.places)
            raise exc.ArgumentError(said) from None
    lifespan.check()


def add_metrics(app: Starlette, path: str = "/metrics") -> None:
    """Answer one path of an application with the metrics of its pools, for Prometheus.

    Of all processes where `POOLPROOF_METRICS_DIR` names their directory, or under
    Gunicorn with its hooks (`poolproof.integrations.gunicorn`), else of the one that
    answers. Whoever can reach the path can read it.

    Args:
        app: The application; before a route that would take the path.
        path: The path, with ``/`` at its beginning.

    Raises:
        ValueError: The path does not begin with ``/``.
    """
    if not path.startswith("/"):
        msg = f"path begins with /, which {path!r} does not"
        raise ValueError(msg)

    # It reads files: in a thread, where functions that are not async are run.
    def metrics(_request: Request) -> Response:
        return Response(metrics_text(), headers={"Content-Type": CONTENT_TYPE})

    app.add_route(path, metrics, ["GET"], "poolproof_metrics", include_in_schema=False)
    want()


class _Middleware:
    """What stands before the application's own middlewares, once installed.

    Args:
        app: What stands behind it.
        owner: The application.
        lifespan: What is done at its start and its end.
        retry_after: What 503 says about when to come again, in seconds; None answers
            nothing.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        owner: Starlette,
        lifespan: Lifespan,
        retry_after: int | None,
    ) -> None:
        self._app = app
        self._owner = owner
        self._lifespan = lifespan
        self._retry_after = retry_after
        self._seldom = Seldom(_SAID_EVERY_S)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the application's life."""
        if scope["type"] == "lifespan":
            await self._lifespan(self._app, scope, receive, send)
            return
        before = scopes.enter(_UNROUTED)
        try:
            if self._retry_after is None:
                await self._app(_Routed(scope), receive, send)
            else:
                await self._or_503(scope, receive, send, self._retry_after)
        finally:
            scopes.restore(before)

    async def _or_503(
        self, scope: Scope, receive: Receive, send: Send, retry_after: int
    ) -> None:
        begun = False

        async def tell(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(_Routed(scope), receive, tell)
        except (PoolTimeout, BreakerOpen) as error:
            if begun and scope["type"] == "http":
                raise  # half of an answer has gone
            if (more := self._seldom.due()) is not None:
                _log.warning("a request was answered with 503: %s%s", error, more)
            headers = {"Retry-After": str(retry_after)}
            if scope["type"] == "http":
                refusal = HTTPException(503, _BUSY, headers)
                response = await self._response(Request(scope, receive), refusal)
                await response(scope, receive, send)
            elif begun or _REFUSES not in scope.get("extensions", {}):
                await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER})
            else:
                for message in _refusal_of_websocket(headers):
                    await send(message)

    async def _response(self, request: Request, refusal: HTTPException) -> Response:
        """Make the answer: by the application's own page for 503, if it has one."""
        handlers = self._owner.exception_handlers
        handler: Any = handlers.get(503) or handlers.get(HTTPException)
        made: Any = None
        if inspect.iscoroutinefunction(handler):
            made = await handler(request, refusal)
        elif handler is not None:
            made = await run_in_threadpool(handler, request, refusal)
        return made or PlainTextResponse(
            refusal.detail, 503, dict(refusal.headers or {})
        )


def _refusal_of_websocket(headers: dict[str, str]) -> Iterator[Message]:
    named = [(key.lower().encode(), each.encode()) for key, each in headers.items()]
    yield {"type": f"{_REFUSES}.start", "status": 503, "headers": named}
    yield {"type": f"{_REFUSES}.body", "body": _BUSY.encode()}


class _Routed(dict[str, Any]):
    """A request's `scope`, which names what is done for it as soon as it has a route.

    The router says so by `update`, in the task that goes on to the endpoint: the task
    of the request, or one that a middleware has made for it. What is written here is
    written to the request's own as well, for who stands before looks there.
    """

    __slots__ = ("_given",)

    def __init__(self, given: Scope) -> None:
        """Take over what there is.

        Args:
            given: The request's own.
        """
        super().__init__(given)
        self._given = given

    def update(self, *found: Any, **more: Any) -> None:
        """Take over what the router has found."""
        super().update(*found, **more)
        self._given.update(*found, **more)
        endpoint = self.get("endpoint")
        if endpoint is not None:
            scopes.enter(_name_of(endpoint)[:_SCOPE_LONGEST])

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self._given[key] = value

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        del self._given[key]

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return a value; set it where there is none."""
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: str, *default: Any) -> Any:
        """Return a value, and take it out."""
        self._given.pop(key, None)
        return super().pop(key, *default)


def _name_of(endpoint: Any) -> str:
    """Name an endpoint: a function, a class, or an application that is mounted."""
    named = endpoint if hasattr(endpoint, "__qualname__") else type(endpoint)
    return f"{named.__module__}.{named.__qualname__}"


def _engines_of(given: Any) -> Iterator[Engine]:
    """Yield the engines of what was given, every part of a known kind."""
    if given is None:
        return
    for part in given if isinstance(given, (list, tuple, set)) else [given]:
        if is_engine(part):
            yield sync_engine(part)
            continue
        factory = getattr(part, "session_factory", part)
        bound = getattr(factory, "kw", None)
        if not isinstance(bound, dict):
            msg = (
                "engines must be an engine, a sessionmaker, an async_sessionmaker, a "
                f"scoped_session, or a list of those, not {type(part).__name__}"
            )
            raise TypeError(msg)
        for each in (bound.get("bind"), *(bound.get("binds") or {}).values()):
            if is_engine(each):
                yield sync_engine(each)
