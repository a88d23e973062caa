"""The sessions and engines of a program that named none: what is on this pool."""

from __future__ import annotations

import gc
import sys
from typing import Any

from sqlalchemy.engine import Engine
from sqlalchemy.orm import scoped_session, sessionmaker

from poolproof._sqlalchemy import engine_of_pool
from poolproof.fork import renewal

__all__ = ["on_our_pool"]


def on_our_pool() -> tuple[list[Any], list[Engine]]:
    """Find what uses a `poolproof.Pool` in this process.

    It looks at every object that there is, and is for the start of a program.

    Returns:
        Sessions (each a `scoped_session`, a `sessionmaker`, or Flask-SQLAlchemy's
        extension), and engines. What has another pool was not meant, and is left alone.
    """
    engines = []
    for pool in renewal.pools():
        engine = engine_of_pool(pool)
        if engine is not None and engine.pool is pool:
            engines.append(engine)
    known = {id(engine) for engine in engines}
    sessions = []
    factories = set()
    for one in gc.get_objects():
        bound = _bound(one)
        if bound and known.issuperset(map(id, bound)):
            sessions.append(one)
            if isinstance(one, scoped_session):
                factories.add(id(one.session_factory))
            elif not isinstance(one, sessionmaker):
                factories.add(id(one.session.session_factory))
                factories.add(id(one.session))
    # A scoped session's own factory is not used beside it.
    return [one for one in sessions if id(one) not in factories], engines


def _bound(one: object) -> list[Engine]:
    """Return the engines that a session, or what makes some, is bound to."""
    # Not isinstance: that asks proxies for what they stand for.
    kind = type(one)
    extension = getattr(sys.modules.get("flask_sqlalchemy"), "SQLAlchemy", None)
    found: list[Any] = []
    if issubclass(kind, (scoped_session, sessionmaker)):
        given = getattr(getattr(one, "session_factory", one), "kw", {})
        found = [given.get("bind"), *(given.get("binds") or {}).values()]
    elif extension is not None and issubclass(kind, extension):
        for engines in list(getattr(one, "_app_engines", {}).values()):
            found += engines.values()
    return [engine for engine in found if isinstance(engine, Engine)]
