"""``?plugin=poolproof``: the pool and the guard without a change of code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import CreateEnginePlugin
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.pool import QueuePool

from poolproof._log import Log
from poolproof.guard import guard
from poolproof.pool import Pool

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Engine

__all__ = ["Plugin"]

_log = Log("poolproof")


class Plugin(CreateEnginePlugin):
    """Makes an engine use `poolproof.Pool`, and guards it.

    The pool is used where SQLAlchemy's own choice would be `QueuePool`. A pool or a
    pool class that the caller names is respected, and so is the special pool that a
    dialect needs (SQLite in memory). An async engine keeps its pool, which must be an
    async one, and gets the guard alone; the log says so once a process.
    """

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        """Choose the pool class before SQLAlchemy does.

        Args:
            url: The engine's URL.
            kwargs: The arguments of `create_engine`, changed in place.
        """
        super().__init__(url, kwargs)
        if kwargs.get("pool") is not None or kwargs.get("poolclass") is not None:
            return
        # create_async_engine marks its call with this argument; a driver that is async
        # only (asyncpg) shows it in its dialect.
        dialect: Any = url.get_dialect(_is_async=bool(kwargs.get("_is_async", False)))
        if dialect.is_async:
            _say_async_once()
        elif (
            issubclass(dialect, DefaultDialect)
            and dialect.get_pool_class(url) is QueuePool
        ):
            kwargs["poolclass"] = Pool

    def update_url(self, url: URL) -> URL:
        """Return the URL as it is: SQLAlchemy itself takes ``plugin`` out of it."""
        return url

    def engine_created(self, engine: Engine) -> None:
        """Guard the engine, whatever its pool."""
        guard(engine)


_said_async: list[bool] = []


def _say_async_once() -> None:
    if not _said_async:
        _said_async.append(True)
        _log.warning(
            "poolproof.Pool is not for async engines: they keep SQLAlchemy's pool, and "
            "only the guard is installed"
        )
