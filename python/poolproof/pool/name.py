"""What a pool is called in messages: what it was told, or ``database@host``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from poolproof._sqlalchemy import arguments_of, engine_of_pool

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.pool import Pool

__all__ = ["ServerAddress", "address_of", "name_of"]

# A "@" that was not escaped in a URL's password makes a host, or a database, of what
# comes behind it. Names with anything unusual in them are left out.
_DATABASE = re.compile(r"[\w.-]+")
_HOST = re.compile(r"[\w.,:/-]+")
_DATABASES = ("dbname", "database")
_HOSTS = ("host", "hostaddr")


def name_of(pool: Pool, others: Iterable[str]) -> str:
    """Choose the name of a pool.

    Args:
        pool: The pool.
        others: The names that other pools of the process have.

    Returns:
        `pool_logging_name` or `logging_name` of `create_engine`, where it was given;
        else ``database@host``, as the driver is told them, or what is known of that,
        with a number behind it where another pool has the name.
    """
    given = pool._orig_logging_name
    if given is None:
        engine = engine_of_pool(pool)
        given = None if engine is None else engine.logging_name
    if given:
        return given
    wanted = _server_of(pool) or getattr(pool._dialect, "name", "default")
    taken = set(others)
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}#{number}"
    return name


class ServerAddress(NamedTuple):
    """Where a pool's connections lead to, as far as the driver is told.

    Attributes:
        database: The database; None where it is not told, or looks unusual.
        host: The server's host, in the same way.
        port: The server's port.
    """

    database: str | None = None
    host: str | None = None
    port: int | None = None


def address_of(pool: Pool) -> ServerAddress:
    """Say where a pool's connections lead to, and nothing of who may use them.

    Args:
        pool: The pool.
    """
    found = arguments_of(pool)
    if found is None:
        return ServerAddress()
    _positional, told = found
    database, host = _first(told, _DATABASES), _first(told, _HOSTS)
    port = str(told.get("port", ""))
    if not (_DATABASE.fullmatch(database) and _HOST.fullmatch(host)):
        return ServerAddress()
    return ServerAddress(database, host, int(port) if port.isdecimal() else None)


def _server_of(pool: Pool) -> str:
    found = address_of(pool)
    return "" if found.host is None else f"{found.database}@{found.host}"


def _first(told: dict[str, Any], names: Iterable[str]) -> str:
    """Return the first argument that was given, as text."""
    return next((str(told[name]) for name in names if told.get(name)), "")
