"""libpq's parameters, handed to the one who reads them (src/conninfo/).

Here is only gathered what a process has for its connections: environment, home, user,
and what the installed libpq says of itself. No error here holds a value that may be a
secret, not even as an attribute.
"""

from __future__ import annotations

import os
import pwd
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import exc

from poolproof import _native

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["HINT", "KEYWORDS", "PORT", "Conninfo", "conninfo", "said", "ssl_words"]

Conninfo = _native.Conninfo

HINT = "pass control_dsn= with a URL or a connection string of its own"
PORT = "5432"
_VARIABLES = (b"PG", b"SSL_CERT_")
# Debian's libpq, and libpq as it comes.
_SOCKET_DIRECTORIES = ("/var/run/postgresql", "/tmp")  # noqa: S108
KEYWORDS = frozenset(name for name, _, _ in _native.keywords())


def conninfo(
    text: str | None = None,
    keywords: Mapping[str, Any] | None = None,
    *,
    dbapi: Any = None,
    is_libpq: bool = True,
) -> Conninfo:
    """Describe a connection. What is left out comes from the environment, as in libpq.

    Args:
        text: A URL, or libpq's ``name=value`` pairs.
        keywords: libpq's keywords with their values; they count before *text*.
        dbapi: The driver's module, which may know what its libpq has as defaults.
        is_libpq: Whether the driver is libpq's; another reads neither environment nor
            files.

    Raises:
        ArgumentError: It says what cannot be understood, or what the control plane
            cannot do; the message names the keyword.
    """
    environment = {
        name: value
        for name, value in os.environb.items()
        if name.startswith(_VARIABLES if is_libpq else _VARIABLES[1:])
    }
    home, user = _person()
    defaults, newer = _built_in(dbapi)
    error: str
    try:
        return Conninfo(
            text=None if text is None else _bytes(text),
            keywords=[
                (name, _bytes(value)) for name, value in (keywords or {}).items()
            ],
            environment=environment,
            home=home if is_libpq else None,
            user=user,
            sockets=_socket_directory(dbapi),
            defaults=defaults,
            newer=newer,
        )
    except _native.Refused as refused:
        error = refused.args[1]
    except UnicodeError:
        # Not as a cause or context: it holds the whole text.
        error = "a parameter holds half of a character (a surrogate)"
    raise exc.ArgumentError(f"{error}: {HINT}" if text is None else error)


def said(
    keywords: Mapping[str, Any], drivers_own: Collection[str] = ()
) -> dict[str, Any]:
    """Return what a driver's arguments say in libpq's words.

    Args:
        keywords: Arguments by name; None says nothing.
        drivers_own: Names that mean something to the driver alone.
    """
    return {
        "dbname" if name == "database" else name: value
        for name, value in keywords.items()
        if value is not None and name not in drivers_own
    }


def ssl_words(context: Any, *, otherwise: str | None) -> dict[str, Any]:
    """Say in libpq's words what an SSL context asks for, as far as it can be seen.

    Args:
        context: An SSLContext, True, False, or None.
        otherwise: The `sslmode` where it is None.

    Raises:
        ArgumentError: It cannot be seen.
    """
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


def _bytes(value: Any) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    return str(value).encode("utf-8", "surrogateescape")


def _person() -> tuple[bytes | None, str | None]:
    """Return the home and the name of this process's user, as far as there are any."""
    try:
        entry = pwd.getpwuid(os.geteuid())
    except KeyError:
        return os.environb.get(b"HOME") or None, None
    home = os.environb.get(b"HOME") or os.fsencode(entry.pw_dir)
    return home or None, entry.pw_name


def _socket_directory(dbapi: Any) -> bytes:
    """Return where this libpq looks for a server when nobody names a host."""
    try:
        # It says so of an attempt, which ends at once: there is no such socket.
        attempt = dbapi.pq.PGconn.connect_start(b"host='' hostaddr='' port=1")
        if attempt.host:
            return bytes(attempt.host)
    except AttributeError:
        pass
    first, other = _SOCKET_DIRECTORIES
    return os.fsencode(first if Path(first).is_dir() else other)


def _built_in(dbapi: Any) -> tuple[dict[str, bytes], list[tuple[str, str]]]:
    """Return what a libpq has compiled in, and keywords of it that are new.

    psycopg shows it; of psycopg2's libpq nothing is to be had.
    """
    try:
        options = dbapi.pq.Conninfo.get_defaults()
    except AttributeError:
        return {}, []
    # Only what is compiled in: the values beside it may be secrets of the environment.
    known = [
        (option.keyword.decode(), option.envvar, option.compiled) for option in options
    ]
    defaults = {name: built for name, _, built in known if built and name in KEYWORDS}
    newer = [
        (name, (variable or b"").decode())
        for name, variable, _ in known
        if name not in KEYWORDS
    ]
    return defaults, newer
