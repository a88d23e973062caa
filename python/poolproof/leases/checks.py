"""What may be a lease's name, its table, a length of time, and what is guarded."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import Connection, exc

from poolproof import _checks

__all__ = [
    "TABLE",
    "check_control_dsn",
    "check_name",
    "check_seconds",
    "check_table",
    "check_text",
    "connection_of",
]

TABLE = "poolproof_lease"
_NAME_LIMIT = 200
_TABLE_LIMIT = 63
_MOST_S = 1e9
_NOT_STORED = re.compile("[\0\ud800-\udfff]")


def check_name(name: Any) -> None:
    """Check the name of a lease.

    Args:
        name: What was given.

    Raises:
        ArgumentError: It is not 1 to 200 bytes of text.
    """
    check_text("a lease's name", name)
    size = len(name.encode())
    if not 0 < size <= _NAME_LIMIT:
        raise exc.ArgumentError(
            f"a lease's name must be 1 to {_NAME_LIMIT} bytes of text; this one has "
            f"{size}"
        )


def check_text(what: str, value: Any) -> None:
    """Check text that the server is to be given. It is not quoted: it may be secret.

    Args:
        what: The parameter.
        value: What was given.

    Raises:
        ArgumentError: It is no text, or the server could not take it.
    """
    if not isinstance(value, str):
        raise exc.ArgumentError(f"{what} must be text, not {type(value)}")
    found = _NOT_STORED.search(value)
    if found:
        raise exc.ArgumentError(
            f"{what} has U+{ord(found[0]):04X} at position {found.start()}: PostgreSQL "
            "takes neither zero bytes nor lone surrogates"
        )


def check_control_dsn(value: Any) -> None:
    """Check a `control_dsn`, as far as it can be told without a look at files.

    Args:
        value: What was given: text, a function that returns it, or None.

    Raises:
        ArgumentError: It is none of these.
    """
    _checks.no_coroutine_function("control_dsn", value)
    if value is not None and not callable(value):
        check_text("control_dsn", value)


def check_table(table: Any) -> None:
    """Check the name of a table.

    Args:
        table: What was given.

    Raises:
        ArgumentError: It is not a name, nor a schema's and a name with a dot between.
    """
    part = rf"[A-Za-z_][\w$]{{0,{_TABLE_LIMIT - 1}}}"
    if not isinstance(table, str) or not re.fullmatch(
        rf"{part}(\.{part})?", table, re.ASCII
    ):
        raise exc.ArgumentError(
            f"table is {table!r}, but must be a name of letters, digits and _ (at most "
            f"{_TABLE_LIMIT}), with a schema and a dot before it if wanted"
        )


def check_seconds(
    name: str, value: Any, minimum: float, *, none: bool = True, above: bool = False
) -> None:
    """Check a length of time that must be finite.

    Args:
        name: The parameter.
        value: What was given, in seconds.
        minimum: Smallest value allowed.
        none: Whether None may be given.
        above: Whether `minimum` itself is too small.

    Raises:
        ArgumentError: It is no number, not finite, or below `minimum`.
    """
    if value is None and none:
        return
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number and minimum <= value <= _MOST_S and not (above and value == minimum):
        return
    bound = f"more than {minimum:g}" if above else f"{minimum:g} or more"
    also = ", or None" if none else ""
    hint = "; values from a configuration file are strings: convert them"
    raise exc.ArgumentError(
        f"{name} is {value!r}, but must be seconds, {bound}{also}"
        + hint * isinstance(value, str)
    )


def connection_of(given: Any) -> Connection:
    """Return the connection of a transaction: of a session, or itself.

    Args:
        given: What a guard was given.

    Raises:
        ArgumentError: It is neither, or one of asyncio.
    """
    inner: Any = given
    if hasattr(inner, "registry"):  # of a scoped_session
        inner = inner.registry()
    if hasattr(inner, "run_sync"):
        raise exc.ArgumentError(
            f"guard needs a Connection or a Session; this is {type(given)}: use "
            "await connection.run_sync(lease.guard), or an AsyncLease"
        )
    if hasattr(inner, "get_bind"):  # a Session
        inner = inner.connection()
    if not isinstance(inner, Connection):
        raise exc.ArgumentError(
            "guard needs the Connection or the Session whose transaction it is to "
            f"bind; this is {type(given)}"
        )
    return inner
