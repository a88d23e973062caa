"""The shop of asyncio's that uvicorn serves; it has used its engine when it was loaded.

Each answer is the database's own: the order's token, asked for after the row was
written. The status says what became of the row. Whoever hangs up has the work for him
cancelled, as a streamed response or a `BaseHTTPMiddleware` does it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from poolproof.drill.service import taken_over

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

SIZE: Final = 2
OVERFLOW: Final = 1

stage = taken_over()
engine = stage.async_engine(pool_size=SIZE, max_overflow=OVERFLOW)
sessions = async_sessionmaker(engine)
# It takes a while, so that there is time to hang up.
_ask: Final = text("SELECT CAST(:token AS text) FROM pg_sleep(0.003)")


class TurnedDownError(Exception):
    """The application fails in the middle of a request, with its row written."""


async def _write(session: AsyncSession, token: str) -> None:
    await session.execute(stage.insert(), {"id": f"{stage.tag}/{token}"})


async def _answer(session: AsyncSession, token: str) -> str:
    return str(await session.scalar(_ask, {"token": token}))


async def order(session: AsyncSession, token: str) -> str:
    """Write a row and commit."""
    await _write(session, token)
    await session.commit()
    return await _answer(session, token)


async def cancel(session: AsyncSession, token: str) -> str:
    """Write a row and roll back."""
    await _write(session, token)
    await session.rollback()
    return await _answer(session, token)


async def refuse(session: AsyncSession, token: str) -> str:
    """Write a row and raise, with the transaction open."""
    await _write(session, token)
    raise TurnedDownError(await _answer(session, token))


def _page(work: Callable[[AsyncSession, str], Awaitable[str]]) -> Any:
    async def page(request: Request) -> PlainTextResponse:
        async with sessions() as session:
            return PlainTextResponse(await work(session, request.path_params["token"]))

    return page


async def index(_request: Request) -> PlainTextResponse:
    """Say that the shop is open, without the database."""
    return PlainTextResponse("open")


async def refused(_request: Request, error: Exception) -> PlainTextResponse:
    """Answer with what the database said before the application failed."""
    return PlainTextResponse(str(error), 409)


async def fail(_request: Request, error: Exception) -> PlainTextResponse:
    """Say what went wrong."""
    words = f"{type(error).__name__}: {str(error).strip()[:200]}"
    return PlainTextResponse(words, 500)


class GiveUp:
    """Cancels what is done for a client that has hung up.

    Args:
        app: What stands behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and listen meanwhile."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        work = asyncio.ensure_future(self._app(scope, receive, send))
        listening = asyncio.ensure_future(_hung_up(receive))
        await asyncio.wait({work, listening}, return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        if not work.done():
            work.cancel()
            await asyncio.wait({work})
        if not work.cancelled():
            work.result()


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


app = Starlette(
    routes=[
        Route("/", index),
        *(Route(f"/{w.__name__}/{{token}}", _page(w)) for w in (order, cancel, refuse)),
    ],
    exception_handlers={TurnedDownError: refused, Exception: fail},
)
app.add_middleware(GiveUp)
if stage.pool == "poolproof":
    from poolproof.integrations.starlette import init_app

    init_app(app, engine)


async def warm() -> None:
    """Use the engine, as many applications do when they are loaded."""
    opened = [await engine.connect() for _ in range(SIZE)]
    for connection in opened:
        await connection.execute(text("SELECT 1"))
    for connection in opened:
        await connection.close()


# uvicorn has a loop of its own; this one is closed by then.
asyncio.run(warm())
