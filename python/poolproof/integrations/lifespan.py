"""The pools of an ASGI application: opened ahead at its start, disposed of at its end.

It stands on what every ASGI application is told of its life, so it needs no framework.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from typing import TYPE_CHECKING, Any

from sqlalchemy import exc
from sqlalchemy.util import greenlet_spawn

from poolproof._log import Log
from poolproof._sqlalchemy import engine_of_pool
from poolproof.fork import renewal
from poolproof.pool.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.engine import Engine

__all__ = ["Lifespan"]

_log = Log("poolproof.integrations")
_ENDS = frozenset(
    {
        "lifespan.startup.failed",
        "lifespan.shutdown.complete",
        "lifespan.shutdown.failed",
    }
)


class Lifespan:
    """What is done for the engines of one application, from its start to its end.

    Args:
        engines: The engines; empty for those on these pools, whichever there are then.
        warm: How many connections of each are opened at the start.
        dispose_timeout: How long disposing of all of them may take, in seconds.
    """

    def __init__(
        self, engines: Sequence[Engine], *, warm: int, dispose_timeout: float
    ) -> None:
        self._engines = engines
        self._warm = warm
        self._dispose_timeout = dispose_timeout

    def check(self) -> None:
        """Compare with the pools what was asked for.

        Raises:
            ArgumentError: A pool would not keep so many connections.
        """
        for engine in self._engines:
            pool = engine.pool
            if isinstance(pool, Pool) and self._warm > pool.size():
                msg = (
                    f"warm is {self._warm} and pool_size is {pool.size()}: a pool "
                    "keeps no more than that"
                )
                raise exc.ArgumentError(msg)

    async def __call__(self, app: Any, scope: Any, receive: Any, send: Any) -> None:
        """Pass on what the application and its server tell each other.

        Args:
            app: The application.
            scope: Of the type ``lifespan``.
            receive: What the server says.
            send: What the application answers.
        """

        async def tell(message: Any) -> None:
            # When its own code has ended: that makes engines, and uses them.
            if message["type"] == "lifespan.startup.complete":
                await self._begin()
            elif message["type"] in _ENDS:
                await self._end()
            await send(message)

        await app(scope, receive, tell)

    async def _begin(self) -> None:
        for engine in self._known() if self._warm else ():
            try:
                await _away(engine, functools.partial(_open, engine, self._warm))
            except Exception as error:  # noqa: BLE001 - of a driver, of any class
                _log.warning(
                    "the pool of %s was not opened ahead; the application starts all "
                    "the same: %s",
                    engine.url.render_as_string(hide_password=True),
                    str(error).partition("\n")[0],
                )

    async def _end(self) -> None:
        engines = self._known()
        endings = [
            asyncio.ensure_future(_away(engine, engine.dispose)) for engine in engines
        ]
        if not endings:
            return
        await asyncio.wait(endings, timeout=self._dispose_timeout)
        for engine, ending in zip(engines, endings, strict=True):
            shown = engine.url.render_as_string(hide_password=True)
            if not ending.done():
                ending.cancel()
                _log.warning(
                    "the pool of %s was not disposed of within %g s; the application "
                    "ends all the same",
                    shown,
                    self._dispose_timeout,
                )
            elif (error := ending.exception()) is not None:
                _log.warning("the pool of %s was not disposed of: %r", shown, error)

    def _known(self) -> Sequence[Engine]:
        if self._engines:
            return self._engines
        found = ((engine_of_pool(pool), pool) for pool in renewal.pools())
        return [
            engine
            for engine, pool in found
            if engine is not None and engine.pool is pool
        ]


def _open(engine: Engine, count: int) -> None:
    """Open so many connections, which rest in the pool then."""
    opened: list[Any] = []
    try:
        opened.extend(engine.raw_connection() for _ in range(count))
    finally:
        for connection in opened:
            connection.close()


async def _away(engine: Engine, work: Callable[[], None]) -> None:
    """Have something done where it holds up nobody: in a thread, or in a greenlet.

    The thread is one of its own, which does not keep the process from ending: nobody
    knows how long a pool of another's takes.
    """
    if engine.dialect.is_async:
        await greenlet_spawn(work)
        return
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def tell(error: Exception | None) -> None:
        if ended.done():  # nobody waits any more
            return
        if error is None:
            ended.set_result(None)
        else:
            ended.set_exception(error)

    def run() -> None:
        failure: Exception | None = None
        try:
            work()
        except Exception as error:  # noqa: BLE001 - told to whoever waits
            failure = error
        try:
            loop.call_soon_threadsafe(tell, failure)
        except RuntimeError:  # the loop was closed meanwhile
            return

    threading.Thread(target=run, name="poolproof-lifespan", daemon=True).start()
    await ended
