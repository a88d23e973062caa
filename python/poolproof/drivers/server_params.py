"""How the control plane reaches the server that an engine uses.

An engine's parameters are its driver's: libpq's words and environment for psycopg2 and
psycopg, pg8000's own, asyncpg's own. Here they become plain values, once; what cannot
be known (a password that a function makes, a listener that changes the arguments) is
refused with a sentence that names `control_dsn`. No error here quotes a value that may
be a secret.
"""

from __future__ import annotations

import inspect
import math
import ssl
from typing import TYPE_CHECKING, Any

from sqlalchemy import exc

from poolproof.drivers.libpq import HINT, conninfo

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from sqlalchemy import Dialect, Pool

    from poolproof.drivers.libpq import Conninfo

    _Reader = Callable[[Any, tuple[Any, ...], dict[str, Any]], Conninfo]

__all__ = ["from_dsn", "from_pool"]


def from_dsn(dsn: str) -> Conninfo:
    """Work out how to reach a server from what a person wrote.

    Args:
        dsn: A URL (`postgresql://…`, as libpq reads it; SQLAlchemy's forms will do), or
            libpq's ``name=value`` pairs. What it leaves out comes from the `PG*`
            environment and libpq's files.

    Returns:
        What the extension's `Server` takes.

    Raises:
        ArgumentError: It is neither, or says what the control plane cannot do.
    """
    if not dsn.strip():
        raise exc.ArgumentError("control_dsn must be a URL or name=value pairs")
    try:
        return conninfo(dsn)
    except exc.ArgumentError as refused:
        error = f"control_dsn: {refused}"
    raise exc.ArgumentError(error)


def from_pool(pool: Pool, dialect: Dialect) -> Conninfo:
    """Work out how to reach the server that a pool connects to.

    Args:
        pool: The pool of a synchronous engine.
        dialect: The engine's dialect.

    Returns:
        What the extension's `Server` takes.

    Raises:
        ArgumentError: It cannot be known; the message names `control_dsn`.
    """
    name = getattr(dialect, "name", "no known database")
    if name != "postgresql":
        raise exc.ArgumentError(f"the control plane needs PostgreSQL; this is {name}")
    args, keywords = _arguments(pool, dialect)
    if callable(keywords.get("password")):
        raise exc.ArgumentError(f"the password is made by a function: {HINT}")
    reader = _READERS.get(dialect.driver)
    if reader is None:
        raise exc.ArgumentError(
            f"the parameters of the driver {dialect.driver} are not known: {HINT}"
        )
    return reader(dialect, args, keywords)


def _arguments(pool: Any, engines: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what the engine gives to its driver."""
    creator: Any = getattr(pool, "_creator", None)
    creator = getattr(creator, "__wrapped__", creator)
    if getattr(creator, "__qualname__", "") != "create_engine.<locals>.connect":
        raise exc.ArgumentError(f"the engine has a creator of its own: {HINT}")
    known = inspect.getclosurevars(creator).nonlocals
    dialect = known.get("dialect", engines)
    if _may_be_changed(dialect):
        raise exc.ArgumentError(f"a listener of do_connect may change them: {HINT}")
    return tuple(known.get("cargs_tup", ())), dict(known["cparams"])


def _may_be_changed(dialect: Any) -> bool:
    """Say whether a listener of `do_connect` may lead to another server.

    The integrations have one for `application_name` alone, and it says so.
    """
    if not getattr(dialect, "_has_events", False):
        return False
    return not all(
        getattr(listener, "names_sessions_only", False)
        for listener in dialect.dispatch.do_connect
    )


# --- libpq --------------------------------------------------------------------------

# What is the driver's own among the arguments of its connect().
_PSYCOPG2_S = {"connection_factory", "cursor_factory", "async", "async_"}
_PSYCOPG_S = {
    *("autocommit", "prepare_threshold", "context", "row_factory", "cursor_factory"),
    *("server_cursor_factory",),
}


def _psycopg2(
    dialect: Any, args: tuple[Any, ...], keywords: dict[str, Any]
) -> Conninfo:
    text = args[0] if args else keywords.pop("dsn", None)
    return conninfo(text, _said(keywords, _PSYCOPG2_S), dbapi=dialect.dbapi)


def _psycopg(dialect: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Conninfo:
    text = args[0] if args else keywords.pop("conninfo", None)
    return conninfo(text or None, _said(keywords, _PSYCOPG_S), dbapi=dialect.dbapi)


def _said(keywords: Mapping[str, Any], drivers_own: Collection[str]) -> dict[str, Any]:
    return {
        "dbname" if name == "database" else name: value
        for name, value in keywords.items()
        if value is not None and name not in drivers_own
    }


# --- drivers of their own -----------------------------------------------------------


def _pg8000(_dialect: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Conninfo:
    if args or keywords.get("sock") is not None:
        raise exc.ArgumentError(f"pg8000 is given arguments by position: {HINT}")
    given = {
        "user": keywords.get("user"),
        "password": keywords.get("password"),
        "dbname": keywords.get("database"),
        "host": keywords.get("host") or "localhost",
        "port": keywords.get("port"),
        "application_name": keywords.get("application_name"),
        "replication": keywords.get("replication"),
        "connect_timeout": _whole_seconds(keywords.get("timeout")),
        **_of_context(keywords.get("ssl_context"), otherwise="prefer"),
    }
    path = keywords.get("unix_sock")
    if path:
        given["host"], _, given["port"] = str(path).rpartition("/.s.PGSQL.")
        if not given["port"].isdigit():
            raise exc.ArgumentError(f"unix_sock has an unusual name: {HINT}")
    return conninfo(None, _said(given, set()), is_libpq=False)


def _whole_seconds(seconds: float | None) -> int | None:
    return None if seconds is None else math.ceil(seconds)


# What asyncpg has of libpq's words, and what is its own.
_LIKE_LIBPQ = (
    *("host", "port", "user", "password", "passfile", "target_session_attrs"),
    *("service", "servicefile", "krbsrvname", "gsslib"),
)


def _asyncpg(
    _dialect: Any, args: tuple[Any, ...], keywords: dict[str, Any]
) -> Conninfo:
    if args or keywords.get("dsn"):
        raise exc.ArgumentError(f"asyncpg is given a dsn: {HINT}")
    settings = keywords.get("server_settings") or {}
    given = {name: keywords.get(name) for name in _LIKE_LIBPQ} | {
        "dbname": keywords.get("database"),
        "application_name": settings.get("application_name"),
        "sslnegotiation": "direct" if keywords.get("direct_tls") else None,
    }
    context = keywords.get("ssl")
    if isinstance(context, str):
        given["sslmode"] = context
    else:
        given |= _of_context(context, otherwise=None)
    listed = (list, tuple)
    return conninfo(
        None,
        {
            name: ",".join(map(str, value)) if isinstance(value, listed) else value
            for name, value in _said(given, set()).items()
        },
    )


def _of_context(context: Any, *, otherwise: str | None) -> dict[str, Any]:
    """Say in libpq's words what an SSL context asks for, as far as it can be seen."""
    if context is None:
        return {"sslmode": otherwise}
    if context is True:
        return {"sslmode": "verify-full", "sslrootcert": "system"}
    if context is False:
        return {"sslmode": "disable"}
    if isinstance(context, ssl.SSLContext) and context.verify_mode == ssl.CERT_NONE:
        return {"sslmode": "require"}
    raise exc.ArgumentError(
        f"an SSLContext does not say which certificates it trusts: {HINT}, with "
        "sslmode and sslrootcert"
    )


_READERS: dict[str, _Reader] = {
    "psycopg2": _psycopg2,
    "psycopg": _psycopg,
    "pg8000": _pg8000,
    "asyncpg": _asyncpg,
}
