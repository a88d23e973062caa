"""What of SQLAlchemy there is in this process: every object is looked at, once."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine
from sqlalchemy.util import ThreadLocalRegistry

from poolproof.leases.base import LeaseBase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.pool import Pool

__all__ = ["engines_to", "leases", "pools_of_server", "thread_locals"]


def engines_to(engine: Engine) -> list[Engine]:
    """Return every engine of this process to the same database, *engine* among them.

    Args:
        engine: An engine. Its variants (`execution_options`) share its pool, and are
            one with it.
    """
    pools: dict[int, Engine] = {}
    for one in _all(Engine):
        if one.url == engine.url:
            pools.setdefault(id(one.pool), one)
    return list(pools.values())


def pools_of_server(engine: Engine) -> tuple[Pool, ...]:
    """Return the pools of every engine of this process to the same server.

    Args:
        engine: An engine; its own pool comes first.
    """
    found = {id(engine.pool): engine.pool}
    for one in _all(Engine):
        if _server_of(one) == _server_of(engine):
            found.setdefault(id(one.pool), one.pool)
    return tuple(found.values())


def _server_of(engine: Engine) -> tuple[Any, ...]:
    url = engine.url
    query = url.query
    return url.host, url.port, query.get("host"), query.get("port")


def thread_locals() -> list[Any]:
    """Return the thread-locals in which scoped sessions keep theirs."""
    return [one.registry for one in _all(ThreadLocalRegistry)]


def leases() -> list[Any]:
    """Return the leases of this process."""
    return list(_all(LeaseBase))


def _all(kind: type) -> Iterator[Any]:
    # Not isinstance: that asks proxies for what they stand for.
    return (one for one in gc.get_objects() if issubclass(type(one), kind))
