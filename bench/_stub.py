"""A driver that does nothing, over a real socket pair or over nothing at all.

What is timed with it is the pool and SQLAlchemy, not a database.
"""

from __future__ import annotations

import resource
import socket
from typing import Any

from sqlalchemy import Engine, create_engine

__all__ = ["BareDriver", "SocketDriver", "allow_descriptors", "make_engine"]


class BareConnection:
    """A connection without a descriptor."""

    autocommit = False
    notices: tuple[str, ...] = ()

    def get_transaction_status(self) -> int:
        """Return libpq's number for idle, as psycopg2 does without a round trip."""
        return 0

    def rollback(self) -> None: ...

    def commit(self) -> None: ...

    def close(self) -> None: ...


class SocketConnection(BareConnection):
    """A connection that owns both ends of a socket pair; one plays the server."""

    def __init__(self) -> None:
        self.here, self.there = socket.socketpair()

    def fileno(self) -> int:
        return self.here.fileno()

    def close(self) -> None:
        self.here.close()
        self.there.close()


class BareDriver:
    """The module-like object that an engine takes as `module=`."""

    apilevel = "2.0"
    paramstyle = "pyformat"
    threadsafety = 2
    __version__ = "99.9.9"

    class Error(Exception): ...

    InterfaceError = DatabaseError = OperationalError = ProgrammingError = Error
    connection_class: type[BareConnection] = BareConnection

    def connect(self, *_: object, **__: object) -> BareConnection:
        return self.connection_class()


class SocketDriver(BareDriver):
    """A driver whose connections own descriptors."""

    connection_class = SocketConnection


def make_engine(
    driver: BareDriver, pool_class: Any, size: int, **options: Any
) -> Engine:
    """Make an engine with `size` connections of `driver`, all open and idle.

    Args:
        driver: The stub driver.
        pool_class: The pool's class.
        size: Slots, none of them overflow.
        **options: Further arguments of `create_engine`.
    """
    engine = create_engine(
        "postgresql+psycopg2://127.0.0.1/stub",
        module=driver,
        poolclass=pool_class,
        pool_size=size,
        max_overflow=0,
        _initialize=False,
        **options,
    )
    for connection in [engine.pool.connect() for _ in range(size)]:
        connection.close()
    return engine


def allow_descriptors(wanted: int) -> int:
    """Raise the limit of open descriptors where it is too low.

    Args:
        wanted: How many are needed in all.

    Returns:
        How many there may be, `wanted` or fewer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit
