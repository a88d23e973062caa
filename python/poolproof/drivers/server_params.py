"""How the control plane reaches the server that an engine uses.

An engine's parameters are its driver's: libpq's words and environment for psycopg2 and
psycopg, pg8000's own, asyncpg's own. Here they become plain values: once, or anew for
each connection where functions make them (listeners of `do_connect`, the password of
asyncpg, a `control_dsn` that is called). What cannot be known (a creator) is refused
with a sentence that names `control_dsn`. No error here quotes a value that may be a
secret.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import ssl
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import URL, exc
from sqlalchemy.pool import ConnectionPoolEntry

from poolproof import _checks
from poolproof.drivers.conninfo import HINT, conninfo

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from sqlalchemy import Dialect, Pool

    from poolproof.drivers.conninfo import Conninfo

    _Reader = Callable[[Any, tuple[Any, ...], dict[str, Any]], Conninfo]

__all__ = [
    "ControlDsn",
    "UnknownParametersError",
    "check_dsn",
    "from_creator",
    "from_dsn",
    "from_function",
    "from_pool",
    "has_functions",
    "known_creator",
]


# How the control plane reaches a server: text, or a function that returns it.
ControlDsn: TypeAlias = "str | Callable[[], str | URL]"


class UnknownParametersError(Exception):
    """A function failed to say how to connect. Its message holds nothing of its own."""


def check_dsn(dsn: Any) -> None:
    """Check a `control_dsn`. A function is not called yet.

    Args:
        dsn: Text, a function without arguments, or None.

    Raises:
        ArgumentError: It is something else, or cannot be read.
    """
    if not (dsn is None or isinstance(dsn, str) or callable(dsn)):
        # Not quoted: it may hold a password.
        msg = (
            f"control_dsn is {_checks.a_kind(dsn)}, but must be text, a function "
            "that returns it, or None"
        )
        raise exc.ArgumentError(msg)
    _checks.no_coroutine_function("control_dsn", dsn)
    if isinstance(dsn, str):
        from_dsn(dsn)


def from_function(function: Callable[[], Any]) -> Conninfo:
    """Ask a `control_dsn` that is a function.

    Args:
        function: It returns what `from_dsn` takes, or a URL of SQLAlchemy's.

    Raises:
        ArgumentError: What it returned cannot be used.
        UnknownParametersError: It raised something.
    """
    dsn = _called("control_dsn", function)
    if isinstance(dsn, URL):
        dsn = dsn.render_as_string(hide_password=False)
    if not isinstance(dsn, str):
        raise exc.ArgumentError(
            f"control_dsn {_named(function)} has returned {_checks.a_kind(dsn)}, "
            "but must return text, or a URL"
        )
    return from_dsn(dsn)


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
    creator = known_creator(pool, dialect)
    return _read(*_arguments(creator, dialect))


def known_creator(pool: Pool, dialect: Dialect) -> Any:
    """Return the function that connects for a pool, where SQLAlchemy has made it.

    Args:
        pool: The pool of a synchronous engine.
        dialect: The engine's dialect.

    Raises:
        ArgumentError: What it connects to cannot be known; the message names
            `control_dsn`.
    """
    name = getattr(dialect, "name", "no known database")
    if name != "postgresql":
        raise exc.ArgumentError(f"the control plane needs PostgreSQL; this is {name}")
    creator: Any = getattr(pool, "_creator", None)
    creator = getattr(creator, "__wrapped__", creator)
    if getattr(creator, "__qualname__", "") != "create_engine.<locals>.connect":
        raise exc.ArgumentError(f"the engine has a creator of its own: {HINT}")
    if dialect.driver not in _READERS:
        raise exc.ArgumentError(
            f"the parameters of the driver {dialect.driver} are not known: {HINT}"
        )
    return creator


def has_functions(creator: Any, dialect: Dialect) -> bool:
    """Say whether functions make what a pool connects with, anew each time.

    Args:
        creator: What `known_creator` has returned.
        dialect: The engine's dialect.
    """
    if next(_listeners(dialect), None) is not None:
        return True
    _, _, keywords = _arguments(creator, dialect)
    return dialect.driver == "asyncpg" and callable(keywords.get("password"))


def from_creator(creator: Any, dialect: Any) -> Conninfo:
    """Work out how to reach the server now, as the pool would connect to it.

    Args:
        creator: What `known_creator` has returned.
        dialect: The engine's dialect.

    Raises:
        ArgumentError: What the functions have made cannot be used.
        UnknownParametersError: One of them raised something.
    """
    dialect, args, keywords = _arguments(creator, dialect)
    # As SQLAlchemy calls them; but what they change is a copy, and there is no record.
    given = list(args)
    for listener in _listeners(dialect):
        connection = _called(
            "the listener of do_connect",
            listener,
            dialect,
            _NoRecord(),
            given,
            keywords,
        )
        if connection is not None:
            _close(connection)
            raise exc.ArgumentError(
                f"the listener of do_connect {_named(listener)} connects by itself: "
                f"{HINT}"
            )
    password = keywords.get("password")
    if dialect.driver == "asyncpg" and callable(password):
        keywords["password"] = made = _called("the password", password)
        if not isinstance(made, str):
            if inspect.iscoroutine(made):
                made.close()
            raise exc.ArgumentError(
                f"the password {_named(password)} has returned "
                f"{_checks.a_kind(made)}, but must return text: {HINT}"
            )
    return _read(dialect, tuple(given), keywords)


def _read(dialect: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Conninfo:
    if callable(keywords.get("password")):
        raise exc.ArgumentError(f"the password is made by a function: {HINT}")
    return _READERS[dialect.driver](dialect, args, keywords)


def _arguments(
    creator: Any, engines: Any
) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Return the dialect, and what the engine gives to its driver."""
    known = inspect.getclosurevars(creator).nonlocals
    dialect = known.get("dialect", engines)
    return dialect, tuple(known.get("cargs_tup", ())), dict(known["cparams"])


def _listeners(dialect: Any) -> Iterator[Any]:
    """Return the listeners of `do_connect` that may lead to another server.

    The integrations have one for `application_name` alone, and it says so.
    """
    if not getattr(dialect, "_has_events", False):
        return
    for listener in dialect.dispatch.do_connect:
        if not getattr(listener, "names_sessions_only", False):
            yield listener


class _NoRecord(ConnectionPoolEntry):
    """What a listener is given as the pool's record of a connection: there is none."""

    dbapi_connection = None
    driver_connection = None
    in_use = True

    def __init__(self) -> None:
        self._info: dict[Any, Any] = {}
        self._record_info: dict[Any, Any] = {}

    @property
    def info(self) -> dict[Any, Any]:
        return self._info

    @property
    def record_info(self) -> dict[Any, Any]:
        return self._record_info


def _called(what: str, function: Any, *arguments: Any) -> Any:
    """Call a function that is not ours. What it raises may hold a secret."""
    try:
        return function(*arguments)
    except BaseException as error:  # noqa: BLE001 - it runs on a thread of ours
        kind = type(error).__name__
    raise UnknownParametersError(
        f"{what} {_named(function)} has raised {kind} (what it says is not shown: it "
        "may hold a secret)"
    )


def _named(function: Any) -> str:
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"({getattr(function, '__module__', None) or '?'}.{name})"


def _close(connection: Any) -> None:
    with contextlib.suppress(Exception):
        connection.close()


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
