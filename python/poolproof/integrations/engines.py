"""Engines that were made without this pool, taken over before they are used."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import Engine
from sqlalchemy.pool import QueuePool

from poolproof._sqlalchemy import parameters_of
from poolproof.faults.guard import guard
from poolproof.pool.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeGuard

    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = [
    "adopt",
    "engine_of",
    "is_engine",
    "is_misread",
    "shown",
    "sync_engine",
]


def sync_engine(engine: Engine | AsyncEngine) -> Engine:
    """Return the engine itself, or the one that an async engine stands on.

    Args:
        engine: An engine, sync or async.
    """
    return engine if isinstance(engine, Engine) else engine.sync_engine


def is_engine(one: object) -> TypeGuard[Engine | AsyncEngine]:
    """Tell whether something is an engine, sync or async.

    Args:
        one: Anything.
    """
    if isinstance(one, Engine):
        return True
    # Nobody has one who has not imported it; the import needs greenlet.
    asyncio = sys.modules.get("sqlalchemy.ext.asyncio")
    return asyncio is not None and isinstance(one, asyncio.AsyncEngine)


def engine_of(source: Any) -> Engine:
    """Find the engine that something works with.

    Args:
        source: An engine, a `sessionmaker`, a `scoped_session`, a session, or a
            Flask-SQLAlchemy extension, which needs its application's context now.

    Raises:
        TypeError: It is none of those, or has no engine.
    """
    if is_engine(source):
        return sync_engine(source)
    factory = getattr(source, "session_factory", source)
    for found in (
        getattr(source, "engine", None),  # Flask-SQLAlchemy
        getattr(factory, "kw", {}).get("bind"),
        getattr(factory, "bind", None),
    ):
        if isinstance(found, Engine):
            return found
    msg = (
        "an engine is needed, or a sessionmaker, scoped_session, session or "
        f"Flask-SQLAlchemy extension with one, not {type(source).__name__}"
    )
    raise TypeError(msg)


def shown(engine: Engine) -> str:
    """Return an engine's URL as it may be shown.

    Args:
        engine: A sync engine.
    """
    if is_misread(engine):
        return (
            f"a {engine.url.drivername} URL with a second @ (not shown: it may be a "
            "piece of the password; write %40 for an @ in a name or password)"
        )
    # Its options may hold a secret as well.
    return engine.url.set(query={}).render_as_string(hide_password=True)


def is_misread(engine: Engine) -> bool:
    """Tell whether a piece of the password may be taken for the host or the database.

    Args:
        engine: A sync engine.
    """
    url = engine.url
    return any("@" in part for part in (url.host or "", url.database or ""))


def adopt(
    engine: Engine | AsyncEngine,
    options: Mapping[str, Any],
    *,
    keep_pool: bool = False,
    places: Mapping[str, str] | None = None,
) -> bool:
    """Guard an engine, and give it this pool in the place of SQLAlchemy's own choice.

    The engine stays the same object, with its listeners, as after `Engine.dispose`. A
    `QueuePool` is taken for nobody's choice; every other pool stays. One of this kind,
    whoever chose it, is exchanged for another with the options that are given.

    Args:
        engine: An engine, sync or async. An async one gets the guard alone.
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
    if type(old) is Pool:
        replaced = bool(options)
    else:
        replaced = not keep_pool and type(old) is QueuePool
    if replaced:
        present = old.given() if isinstance(old, Pool) else parameters_of(old)
        pool = Pool(
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
