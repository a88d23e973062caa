"""What a pool is called in messages: what it was told, or ``database@host``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from poolproof._sqlalchemy import arguments_of, engine_of_pool

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.pool import Pool

__all__ = ["name_of"]

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


def _server_of(pool: Pool) -> str:
    found = arguments_of(pool)
    if found is None:
        return ""
    _positional, told = found
    database = _first(told, _DATABASES)
    host = _first(told, _HOSTS)
    if not (_DATABASE.fullmatch(database) and _HOST.fullmatch(host)):
        return ""
    return f"{database}@{host}"


def _first(told: dict[str, Any], names: Iterable[str]) -> str:
    """Return the first argument that was given, as text."""
    return next((str(told[name]) for name in names if told.get(name)), "")
