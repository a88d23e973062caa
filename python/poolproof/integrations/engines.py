"""Engines that were made without this pool, taken over before they are used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool

from poolproof._sqlalchemy import parameters_of
from poolproof.doctor.engines import sync_engine
from poolproof.faults.guard import guard
from poolproof.plugin import ASYNC_DRIVERS
from poolproof.pool.async_pool import AsyncPool
from poolproof.pool.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.engine import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["adopt"]


def adopt(
    engine: Engine | AsyncEngine,
    options: Mapping[str, Any],
    *,
    keep_pool: bool = False,
    places: Mapping[str, str] | None = None,
) -> bool:
    """Guard an engine, and give it this pool in the place of SQLAlchemy's own choice.

    The engine stays the same object, with its listeners, as after `Engine.dispose`. A
    `QueuePool`, and `AsyncAdaptedQueuePool` on asyncpg or psycopg, is taken for
    nobody's choice; every other pool stays. One of ours, whoever chose it, is exchanged
    for another with the options that are given.

    Args:
        engine: An engine, sync or async.
        options: Arguments of `Pool`, over those that the present pool was given.
        keep_pool: Whether somebody chose the pool.
        places: Where the options are from, by their names for `create_engine`.

    Returns:
        Whether the pool was replaced.

    Raises:
        ArgumentError: The options do not go together.
    """
    sync = sync_engine(engine)
    old = sync.pool
    ours = AsyncPool if sync.dialect.is_async else Pool
    if type(old) is ours:
        replaced = bool(options)
    else:
        replaced = not keep_pool and _is_nobodys_choice(sync)
    if replaced:
        present = old.given() if isinstance(old, Pool) else parameters_of(old)
        pool = ours(
            old._creator,
            **{**present, **options},
            _dispatch=old.dispatch,
            dialect=sync.dialect,
        )
        if isinstance(old, Pool):
            pool.own_name, pool.origins = old.own_name, old.origins
        pool.origins = {**pool.origins, **(places or {})}
        sync.pool = pool
        old.dispose()
    guard(engine)
    return replaced


def _is_nobodys_choice(engine: Engine) -> bool:
    if engine.dialect.is_async:
        is_known = engine.dialect.driver in ASYNC_DRIVERS
        return is_known and type(engine.pool) is AsyncAdaptedQueuePool
    return type(engine.pool) is QueuePool
