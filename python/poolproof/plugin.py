"""``?plugin=poolproof``: the pool and the guard without a change of code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import CreateEnginePlugin
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool

from poolproof._log import Log
from poolproof.faults.guard import guard
from poolproof.pool import knobs
from poolproof.pool.async_pool import AsyncPool
from poolproof.pool.pool import Pool

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Engine

__all__ = ["ASYNC_DRIVERS", "Plugin"]

_log = Log("poolproof")

ASYNC_DRIVERS = ("asyncpg", "psycopg")
"""What `AsyncPool` is for, as SQLAlchemy names it."""


class Plugin(CreateEnginePlugin):
    """Makes an engine use `poolproof.Pool`, and guards it.

    The pool is used where SQLAlchemy's own choice would be `QueuePool`. A pool or a
    pool class that the caller names is respected, and so is the special pool that a
    dialect needs (SQLite in memory). An async engine on asyncpg, psycopg or our own
    driver gets `poolproof.AsyncPool`; on another driver it keeps its pool and gets the
    guard alone, and the log says so once a process.

    Each knob of the pool may stand in the URL, as ``poolproof_hold_timeout=5``. An
    argument of `create_engine` goes before it.
    """

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        """Choose the pool class before SQLAlchemy does, and read the URL's knobs.

        Args:
            url: The engine's URL.
            kwargs: The arguments of `create_engine`, changed in place.

        Raises:
            ArgumentError: A parameter with our prefix that is not known, or has a wrong
                value.
        """
        super().__init__(url, kwargs)
        self._given = knobs.of_url(url.query)
        self._used: list[str] = []
        poolclass = kwargs.get("poolclass")
        if kwargs.get("pool") is None and poolclass is None:
            poolclass = _choose(url, kwargs)
        if isinstance(poolclass, type) and issubclass(poolclass, Pool):
            self._used = [name for name in self._given if name not in kwargs]
            kwargs.update({name: self._given[name] for name in self._used})

    def update_url(self, url: URL) -> URL:
        """Return the URL without our parameters, which are not the driver's.

        SQLAlchemy itself takes ``plugin`` out of it.
        """
        ours = [name for name in url.query if name.startswith(knobs.PREFIX)]
        return url.difference_update_query(ours)

    def engine_created(self, engine: Engine) -> None:
        """Guard the engine, whatever its pool; remember what came from the URL."""
        guard(engine)
        if isinstance(engine.pool, Pool):
            engine.pool.origins = dict.fromkeys(self._used, "URL")
        elif self._given:
            _log.warning(
                "%s in the URL of %s: no effect, for this engine keeps its pool (%s)",
                ", ".join(knobs.PREFIX + name for name in self._given),
                engine.url.set(query={}).render_as_string(hide_password=True),
                type(engine.pool).__name__,
            )


def _choose(url: URL, kwargs: dict[str, Any]) -> type[Pool] | None:
    """Put our pool class among the arguments where `QueuePool` would be chosen."""
    # create_async_engine marks its call with this argument; a driver that is async
    # only (asyncpg) shows it in its dialect.
    dialect: Any = url.get_dialect(_is_async=bool(kwargs.get("_is_async", False)))
    if not issubclass(dialect, DefaultDialect):
        return None
    usual = dialect.get_pool_class(url)
    ours: type[Pool] | None = None
    # The native driver has ours by default.
    if usual in {QueuePool, Pool} and not dialect.is_async:
        ours = Pool
    elif usual is AsyncPool:
        ours = AsyncPool
    elif usual is AsyncAdaptedQueuePool:
        if dialect.name == "postgresql" and dialect.driver in ASYNC_DRIVERS:
            ours = AsyncPool
        else:
            _say_async_once()
    if ours is not None:
        kwargs["poolclass"] = ours
    return ours


_said_async: list[bool] = []


def _say_async_once() -> None:
    if not _said_async:
        _said_async.append(True)
        _log.warning(
            "poolproof.AsyncPool is for asyncpg, psycopg and poolproof's own driver: "
            "async engines on others keep SQLAlchemy's pool, and only the guard is "
            "installed"
        )
