"""How the control plane reaches the server that an engine uses.

An engine's parameters are its driver's: libpq's words and environment for psycopg2 and
psycopg, pg8000's own, asyncpg's own. Here they become plain values, once; what cannot
be known (a password that a function makes, a listener that changes the arguments) is
refused with a sentence that names `control_dsn`. No error here quotes a value that may
be a secret.
"""

from __future__ import annotations

import getpass
import inspect
import re
import ssl
from typing import TYPE_CHECKING, Any

from sqlalchemy import exc
from sqlalchemy.engine import make_url

from poolproof.libpq_params import HINT, PORT, of_server, system_roots, whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import URL, Dialect, Pool

__all__ = ["from_dsn", "from_pool"]

_PAIR = re.compile(
    r"\s*(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)+)\s*", re.DOTALL
)


def from_dsn(dsn: str) -> dict[str, Any]:
    """Work out how to reach a server from what a person wrote.

    Args:
        dsn: A URL (`postgresql://…`, as SQLAlchemy reads it), or libpq's
            ``name=value`` pairs. What it leaves out comes from the `PG*` environment
            and `.pgpass`.

    Returns:
        The arguments of the extension's `Server`, but its size.

    Raises:
        ArgumentError: It is neither, or says what the control plane cannot do.
    """
    if not dsn.strip():
        raise exc.ArgumentError("control_dsn must be a URL or name=value pairs")
    if "://" in dsn:
        try:
            url = make_url(re.sub(r"^postgres(?=\W)", "postgresql", dsn.strip()))
            is_ours = url.get_backend_name() == "postgresql"
        except (exc.ArgumentError, ValueError):
            is_ours = False
        if not is_ours:
            # Not quoted: it may hold a password.
            raise exc.ArgumentError("control_dsn is no URL of a PostgreSQL database")
        return whole(_of_url(url))
    pairs = {}
    place = 0
    while place < len(dsn):
        found = _PAIR.match(dsn, place)
        if found is None:
            raise exc.ArgumentError("control_dsn is not made of name=value pairs")
        value = found[2][1:-1] if found[2].startswith("'") else found[2]
        pairs[found[1]] = re.sub(r"\\(.)", r"\1", value)
        place = found.end()
    return whole(pairs)


def _of_url(url: URL) -> dict[str, Any]:
    """Read a URL as SQLAlchemy's dialects of libpq do."""
    given: dict[str, Any] = {
        name: ",".join(value) if isinstance(value, tuple) else value
        for name, value in url.query.items()
        if name not in ("host", "port", "plugin")
    }
    hosts = _listed(url.query.get("host"))
    ports = _listed(url.query.get("port"))
    if hosts:
        split = [
            host.rpartition(":") if ":" in host else (host, "", "") for host in hosts
        ]
        local = [host.startswith("/") for host in hosts]
        given["host"] = ",".join(
            host if here else parts[0]
            for host, here, parts in zip(hosts, local, split, strict=True)
        )
        ports = ports or [
            "" if here else parts[2] for here, parts in zip(local, split, strict=True)
        ]
    elif url.host:
        given["host"] = url.host
    if any(ports):
        given["port"] = ",".join(ports)
    elif url.port:
        given["port"] = url.port
    named = {"user": url.username, "password": url.password, "dbname": url.database}
    return {**{name: value for name, value in named.items() if value}, **given}


def _listed(value: str | tuple[str, ...] | None) -> list[str]:
    if value is None:
        return []
    return value.split(",") if isinstance(value, str) else list(value)


def from_pool(pool: Pool, dialect: Dialect) -> dict[str, Any]:
    """Work out how to reach the server that a pool connects to.

    Args:
        pool: The pool of a synchronous engine.
        dialect: The engine's dialect.

    Returns:
        The arguments of the extension's `Server`, but its size.

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
    given: dict[str, Any] = reader(dialect, args, keywords)
    return given


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


def _psycopg2(dialect: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    text = args[0] if args else keywords.get("dsn")
    given = dialect.dbapi.extensions.parse_dsn(text) if text else {}
    return whole({**given, **_said(keywords)})


def _psycopg(dialect: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    text = args[0] if args else keywords.get("conninfo")
    given = dialect.dbapi.conninfo.conninfo_to_dict(text) if text else {}
    return whole({**given, **_said(keywords)})


def _said(keywords: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in keywords.items() if value is not None}


# --- drivers of their own -----------------------------------------------------------


def _pg8000(_dialect: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    if args or keywords.get("sock") is not None:
        raise exc.ArgumentError(f"pg8000 is given arguments by position: {HINT}")
    context = keywords.get("ssl_context")
    tls: tuple[str, str | None]
    if context is True:
        tls = ("verify-full", system_roots())
    elif context is None or context is False:
        tls = ("disable" if context is False else "prefer", None)
    else:
        tls = _of_context(context)
    port = int(keywords.get("port") or PORT)
    host = str(keywords.get("host") or "localhost")
    path = keywords.get("unix_sock")
    if path:
        host, _, suffix = str(path).rpartition("/.s.PGSQL.")
        if not suffix.isdigit():
            raise exc.ArgumentError(f"unix_sock has an unusual name: {HINT}")
        port = int(suffix)
    user = _text(keywords.get("user")) or getpass.getuser()
    return of_server(
        endpoints=[(host, None, port, _text(keywords.get("password")))],
        user=user,
        database=_text(keywords.get("database")) or user,
        application=_text(keywords.get("application_name")) or "",
        options=None,
        sslmode=tls[0],
        sslrootcert=tls[1],
        identity=None,
        attributes="any",
        connect_timeout=str(keywords.get("timeout") or ""),
    )


def _asyncpg(_dialect: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    context = keywords.get("ssl")
    if args or keywords.get("dsn"):
        raise exc.ArgumentError(f"asyncpg is given a dsn: {HINT}")
    if context is True:
        tls: tuple[str, str | None] = ("verify-full", system_roots())
    elif isinstance(context, ssl.SSLContext):
        tls = _of_context(context)
    else:
        tls = ("disable" if context is False else str(context or ""), None)
    settings = keywords.get("server_settings") or {}
    given = {
        "host": keywords.get("host"),
        "port": keywords.get("port"),
        "user": keywords.get("user"),
        "password": keywords.get("password"),
        "dbname": keywords.get("database"),
        "sslmode": tls[0],
        "sslrootcert": tls[1],
        "target_session_attrs": keywords.get("target_session_attrs"),
        "application_name": settings.get("application_name"),
        "passfile": keywords.get("passfile"),
    }
    listed = (list, tuple)
    return whole(
        {
            name: ",".join(map(str, value)) if isinstance(value, listed) else value
            for name, value in given.items()
            if value is not None
        }
    )


def _of_context(context: Any) -> tuple[str, str | None]:
    """Read an SSL context, as far as it can be read."""
    if isinstance(context, ssl.SSLContext) and context.verify_mode == ssl.CERT_NONE:
        return "require", None
    raise exc.ArgumentError(
        f"an SSLContext does not say which certificates it trusts: {HINT}, with "
        "sslmode and sslrootcert"
    )


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode()
    return None if value is None else str(value)


_READERS = {
    "psycopg2": _psycopg2,
    "psycopg": _psycopg,
    "pg8000": _pg8000,
    "asyncpg": _asyncpg,
}
