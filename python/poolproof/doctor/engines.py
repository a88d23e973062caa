"""What an engine is, whichever kind it is of, and how it may be shown."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import Engine

if TYPE_CHECKING:
    from typing import TypeGuard

    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["engine_of", "is_engine", "is_misread", "shown", "sync_engine"]


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
