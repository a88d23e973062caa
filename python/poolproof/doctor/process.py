"""What of SQLAlchemy there is in this process: every object is looked at, once."""

from __future__ import annotations

import dataclasses
import gc
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine
from sqlalchemy.util import ThreadLocalRegistry

from poolproof.leases.base import LeaseBase

if TYPE_CHECKING:
    from sqlalchemy.pool import Pool

__all__ = ["Census", "take"]

_KINDS = (Engine, ThreadLocalRegistry, LeaseBase)


@dataclasses.dataclass(frozen=True, slots=True)
class Census:
    """What there was when it was taken.

    Attributes:
        engines: Every engine.
        thread_locals: In which scoped sessions keep theirs.
        leases: Every lease.
    """

    engines: tuple[Engine, ...]
    thread_locals: tuple[Any, ...]
    leases: tuple[Any, ...]

    def engines_to(self, engine: Engine) -> list[Engine]:
        """Return every engine to the same database.

        Args:
            engine: An engine, which is among them. Its variants (`execution_options`)
                share its pool, and are one with it.
        """
        pools: dict[int, Engine] = {}
        for one in self.engines:
            if one.url == engine.url:
                pools.setdefault(id(one.pool), one)
        return list(pools.values())

    def pools_of_server(self, engine: Engine) -> tuple[Pool, ...]:
        """Return the pools of every engine to the same server.

        Args:
            engine: An engine; its own pool comes first.
        """
        found = {id(engine.pool): engine.pool}
        for one in self.engines:
            if _server_of(one) == _server_of(engine):
                found.setdefault(id(one.pool), one.pool)
        return tuple(found.values())


def take() -> Census:
    """Look at every object of this process."""
    found: tuple[list[Any], ...] = ([], [], [])
    # By its class, of which there are few. Not isinstance: that asks proxies for what
    # they stand for.
    known: dict[type, list[Any] | None] = {}
    for one in gc.get_objects():
        kind = type(one)
        if kind not in known:
            known[kind] = next(
                (
                    into
                    for wanted, into in zip(_KINDS, found, strict=True)
                    if issubclass(kind, wanted)
                ),
                None,
            )
        into = known[kind]
        if into is not None:
            into.append(one)
    engines, registries, leases = found
    return Census(
        tuple(engines), tuple(one.registry for one in registries), tuple(leases)
    )


def _server_of(engine: Engine) -> tuple[Any, ...]:
    url = engine.url
    query = url.query
    return url.host, url.port, query.get("host"), query.get("port")
