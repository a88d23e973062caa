"""Which driver a connection is of, or a dialect.

A connection is known by what it can do, so that one that is wrapped (for tracing, say)
is still known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import AdaptedConnection

from poolproof.drivers.adapted_asyncpg import AdaptedAsyncpg
from poolproof.drivers.adapted_native import AdaptedNative
from poolproof.drivers.adapted_psycopg import AdaptedPsycopg
from poolproof.drivers.asyncpg import Asyncpg
from poolproof.drivers.base import Driver
from poolproof.drivers.native import Native
from poolproof.drivers.other import Mock, OtherDatabase, is_mock
from poolproof.drivers.pg8000 import Pg8000
from poolproof.drivers.psycopg import Psycopg
from poolproof.drivers.psycopg2 import Psycopg2

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["by_name", "of"]

_PSYCOPG2 = Psycopg2()
_PSYCOPG, _PSYCOPG_LOCKS = Psycopg(locks=False), Psycopg(locks=True)
_PSYCOPG_OWN = Psycopg(locks=True, is_own=True)
_PG8000 = Pg8000()
_ASYNCPG = Asyncpg()
_NATIVE = Native()
_ADAPTED_PSYCOPG, _ADAPTED_ASYNCPG = AdaptedPsycopg(), AdaptedAsyncpg()
_ADAPTED_NATIVE = AdaptedNative()
_UNKNOWN = Driver("unknown")
_OTHER_DATABASE = OtherDatabase()
_MOCK = Mock()

_BY_NAME: Mapping[str, Driver] = {
    driver.name: driver
    for driver in (_PSYCOPG2, _PSYCOPG_LOCKS, _PG8000, _ASYNCPG, _NATIVE)
}

_ADAPTED: Mapping[str, Driver] = {
    driver.name: driver
    for driver in (_ADAPTED_PSYCOPG, _ADAPTED_ASYNCPG, _ADAPTED_NATIVE)
}

# psycopg2's own class, once it was met: to find out what it is costs what it costs to
# watch its socket.
_of_psycopg2: dict[type, Driver] = {}


def by_name(name: str) -> Driver | None:
    """Return a driver by its name, before there is a connection of it.

    Args:
        name: As a dialect of SQLAlchemy's has it (`Dialect.driver`).

    Returns:
        The driver, or None where it is not known.
    """
    return _BY_NAME.get(name)


def of(connection: Any, dialect: Any) -> Driver:
    """Find out which driver a connection is of.

    Args:
        connection: A DBAPI connection, or what SQLAlchemy adapts one with.
        dialect: The dialect of its engine.

    Returns:
        The driver. One of another database than PostgreSQL is never asked anything.
    """
    found = _of_psycopg2.get(type(connection))
    if found is not None:
        return found
    if isinstance(connection, AdaptedConnection):
        plain = _find_out(connection.driver_connection, dialect)
        return _ADAPTED.get(plain.name, plain)
    return _find_out(connection, dialect)


def _find_out(connection: Any, dialect: Any) -> Driver:
    if is_mock(connection):
        return _MOCK
    if callable(getattr(connection, "get_transaction_status", None)):
        kind = type(connection)
        found: Driver = Psycopg2.of_class(kind)
        if kind.__module__ == "psycopg2.extensions":
            _of_psycopg2[kind] = found
    elif hasattr(getattr(connection, "pgconn", None), "transaction_status"):
        lock = getattr(connection, "lock", None)
        if not hasattr(lock, "locked"):
            found = _PSYCOPG
        else:
            own = Psycopg.rolls_back(connection)
            found = _PSYCOPG_OWN if own else _PSYCOPG_LOCKS
    elif hasattr(connection, "_usock") and hasattr(connection, "_transaction_status"):
        found = _PG8000
    elif callable(getattr(connection, "get_server_pid", None)):
        found = _ASYNCPG
    elif Native.has(connection):
        found = _NATIVE
    elif getattr(dialect, "name", None) == "postgresql":
        found = _UNKNOWN
    else:
        found = _OTHER_DATABASE
    return found
