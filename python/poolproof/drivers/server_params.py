"""How the control plane reaches the server that an engine uses.

An engine's parameters are its driver's, which says what they mean
(`Driver.server_params`). Here they become plain values: once, or anew for each
connection where functions make them (listeners of `do_connect`, the password of
asyncpg, a `control_dsn` that is called). What cannot be known (a creator) is refused
with a sentence that names `control_dsn`. No error here quotes a value that may be a
secret.
"""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import URL, exc
from sqlalchemy.pool import ConnectionPoolEntry

from poolproof import _checks
from poolproof.drivers import known
from poolproof.drivers.conninfo import HINT, conninfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Dialect, Pool

    from poolproof.drivers.base import Driver
    from poolproof.drivers.conninfo import Conninfo

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
    _driver(dialect)
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
    return _driver(dialect).calls_password and callable(keywords.get("password"))


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
    if _driver(dialect).calls_password and callable(password):
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
    return _driver(dialect).server_params(dialect.dbapi, args, keywords)


def _driver(dialect: Any) -> Driver:
    driver = known.by_name(dialect.driver)
    if driver is None:
        raise exc.ArgumentError(
            f"the parameters of the driver {dialect.driver} are not known: {HINT}"
        )
    return driver


def _arguments(
    creator: Any, engines: Any
) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Return the dialect, and what the engine gives to its driver."""
    seen = inspect.getclosurevars(creator).nonlocals
    dialect = seen.get("dialect", engines)
    return dialect, tuple(seen.get("cargs_tup", ())), dict(seen["cparams"])


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
