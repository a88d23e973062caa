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
import os
import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import exc
from sqlalchemy.engine import make_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import URL, Engine

__all__ = ["from_dsn", "from_engine"]

# libpq's parameters that matter here, and their environment variables.
_ENVIRONMENT = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "dbname": "PGDATABASE",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "passfile": "PGPASSFILE",
    "service": "PGSERVICE",
    "options": "PGOPTIONS",
    "application_name": "PGAPPNAME",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslcrl": "PGSSLCRL",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}
_REFUSED = {
    "service": "a service file is not read",
    "sslcrl": "revocation lists are not read",
    "sslpassword": "an encrypted key is not read",
}
_SOCKET_DIRECTORIES = ("/var/run/postgresql", "/tmp")  # noqa: S108 - libpq's own
_PORT = "5432"
_CONNECT_S = 10.0
_NAME_LIMIT = 63
_SUFFIX = "poolproof-control"
_READABLE_BY_OTHERS = 0o077
_PAIR = re.compile(r"\s*(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)+)\s*", re.DOTALL)
_HINT = "pass control_dsn= with a URL or a connection string of its own"


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
    if not isinstance(dsn, str) or not dsn.strip():
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
        return _libpq(_of_url(url))
    pairs = {}
    place = 0
    while place < len(dsn):
        found = _PAIR.match(dsn, place)
        if found is None:
            raise exc.ArgumentError("control_dsn is not made of name=value pairs")
        value = found[2][1:-1] if found[2].startswith("'") else found[2]
        pairs[found[1]] = re.sub(r"\\(.)", r"\1", value)
        place = found.end()
    return _libpq(pairs)


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
        split = [host.rpartition(":") if ":" in host else (host, "", "") for host in hosts]
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


def from_engine(engine: Engine) -> dict[str, Any]:
    """Work out how to reach the server that an engine uses.

    Args:
        engine: A synchronous engine of PostgreSQL.

    Returns:
        The arguments of the extension's `Server`, but its size.

    Raises:
        ArgumentError: It cannot be known; the message names `control_dsn`.
    """
    dialect: Any = engine.dialect
    if dialect.name != "postgresql":
        raise exc.ArgumentError(f"a lease needs PostgreSQL; this is {dialect.name}")
    args, keywords = _arguments(engine)
    if callable(keywords.get("password")):
        raise exc.ArgumentError(f"the password is made by a function: {_HINT}")
    reader = _READERS.get(dialect.driver)
    if reader is None:
        raise exc.ArgumentError(
            f"the parameters of the driver {dialect.driver} are not known: {_HINT}"
        )
    given: dict[str, Any] = reader(dialect, args, keywords)
    return given


def _arguments(engine: Engine) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what the engine gives to its driver."""
    creator: Any = getattr(engine.pool, "_creator", None)
    creator = getattr(creator, "__wrapped__", creator)
    if getattr(creator, "__qualname__", "") != "create_engine.<locals>.connect":
        raise exc.ArgumentError(f"the engine has a creator of its own: {_HINT}")
    known = inspect.getclosurevars(creator).nonlocals
    dialect = known.get("dialect", engine.dialect)
    if getattr(dialect, "_has_events", False) and list(dialect.dispatch.do_connect):
        raise exc.ArgumentError(f"a listener of do_connect may change them: {_HINT}")
    return tuple(known.get("cargs_tup", ())), dict(known["cparams"])


# --- libpq --------------------------------------------------------------------------


def _psycopg2(dialect: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    text = args[0] if args else keywords.get("dsn")
    given = dialect.dbapi.extensions.parse_dsn(text) if text else {}
    return _libpq({**given, **_said(keywords)})


def _psycopg(dialect: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    text = args[0] if args else keywords.get("conninfo")
    given = dialect.dbapi.conninfo.conninfo_to_dict(text) if text else {}
    return _libpq({**given, **_said(keywords)})


def _said(keywords: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in keywords.items() if value is not None}


def _libpq(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fill up with the environment and libpq's defaults."""
    said = {**given, "dbname": given.get("dbname", given.get("database"))}

    def value(name: str, default: str = "") -> str:
        own = said.get(name)
        if own not in (None, ""):
            return str(own)
        return os.environ.get(_ENVIRONMENT.get(name, ""), "") or default

    for name, why in _REFUSED.items():
        if value(name):
            raise exc.ArgumentError(f"{name} is set, but {why} here: {_HINT}")
    user = value("user") or getpass.getuser()
    database = value("dbname") or user
    home = Path.home() / ".postgresql"
    roots = value("sslrootcert") or _there(home / "root.crt")
    certificate = value("sslcert") or _there(home / "postgresql.crt")
    key = value("sslkey") or _there(home / "postgresql.key")
    return _arguments_of_server(
        endpoints=_endpoints(value, user, database),
        user=user,
        database=database,
        application=value("application_name") or value("fallback_application_name"),
        options=value("options") or None,
        sslmode=value("sslmode", "prefer"),
        sslrootcert=_system_roots() if roots == "system" else roots or None,
        identity=(certificate, key) if certificate and key else None,
        attributes=value("target_session_attrs", "any"),
        connect_timeout=value("connect_timeout"),
    )


def _there(path: Path) -> str:
    return str(path) if path.exists() else ""


def _system_roots() -> str:
    found = ssl.get_default_verify_paths().cafile
    if not found:
        raise exc.ArgumentError(
            "sslrootcert=system, but this Python knows no file of root certificates: "
            "name one"
        )
    return found


def _endpoints(value: Any, user: str, database: str) -> list[Any]:
    """Return the places to try, with the password for each."""
    ports = value("port", _PORT).split(",")
    hosts = value("host").split(",")
    addresses = value("hostaddr").split(",")
    count = max(len(hosts), len(addresses))
    hosts, addresses = (_as_many(given, count) for given in (hosts, addresses))
    if len(ports) not in (1, count) or not len(hosts) == len(addresses) == count:
        raise exc.ArgumentError("there are not as many ports as hosts, or one for all")
    password = value("password")
    passfile = value("passfile")
    found = []
    for n, (host, address) in enumerate(zip(hosts, addresses, strict=True)):
        port = ports[n if len(ports) > 1 else 0] or _PORT
        if not port.isdigit() or not 0 < int(port) < 1 << 16:
            raise exc.ArgumentError(f"the port {port!r} is no number from 1 to 65535")
        where = host or address or _socket_directory(port)
        named = host or address or "localhost"
        if where.startswith("/") and where in _SOCKET_DIRECTORIES:
            named = "localhost"
        own = password or _from_passfile(passfile, (named, port, database, user))
        found.append((where, address or None, int(port), own))
    return found


def _as_many(given: list[str], count: int) -> list[str]:
    return given * count if given == [""] else given


def _socket_directory(port: str) -> str:
    for directory in _SOCKET_DIRECTORIES:
        if (Path(directory) / f".s.PGSQL.{port}").exists():
            return directory
    return "localhost"


def _from_passfile(passfile: str, wanted: tuple[str, ...]) -> str | None:
    """Look a password up as libpq does: the first line that fits."""
    path = Path(passfile) if passfile else Path.home() / ".pgpass"
    try:
        if not path.is_file() or path.stat().st_mode & _READABLE_BY_OTHERS:
            return None  # libpq leaves a file alone that others may read
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        fields = [
            re.sub(r"\\(.)", r"\1", field)
            for field in re.findall(r"((?:\\.|[^:\\])*)(?::|$)", line)
        ]
        if line.startswith("#") or len(fields) <= len(wanted):
            continue
        if all(
            field in ("*", value)
            for field, value in zip(fields, wanted, strict=False)
        ):
            return fields[len(wanted)]
    return None


# --- drivers of their own -----------------------------------------------------------


def _pg8000(_dialect: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    if args or keywords.get("sock") is not None:
        raise exc.ArgumentError(f"pg8000 is given arguments by position: {_HINT}")
    context = keywords.get("ssl_context")
    if context is True:
        tls = ("verify-full", _system_roots())
    elif context is None or context is False:
        tls = ("disable" if context is False else "prefer", None)
    else:
        tls = _of_context(context)
    port = int(keywords.get("port") or _PORT)
    host = str(keywords.get("host") or "localhost")
    path = keywords.get("unix_sock")
    if path:
        host, _, suffix = str(path).rpartition("/.s.PGSQL.")
        if not suffix.isdigit():
            raise exc.ArgumentError(f"unix_sock has an unusual name: {_HINT}")
        port = int(suffix)
    user = _text(keywords.get("user")) or getpass.getuser()
    return _arguments_of_server(
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
        raise exc.ArgumentError(f"asyncpg is given a dsn: {_HINT}")
    if context is True:
        tls: tuple[str, str | None] = ("verify-full", _system_roots())
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
    return _libpq(
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
        f"an SSLContext does not say which certificates it trusts: {_HINT}, with "
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


def _arguments_of_server(
    *,
    endpoints: list[Any],
    application: str,
    attributes: str,
    connect_timeout: str,
    **same: Any,
) -> dict[str, Any]:
    """Put together what the extension's `Server` takes."""
    try:
        within = float(connect_timeout or 0)
    except ValueError:
        raise exc.ArgumentError("connect_timeout is no number") from None
    name = f"{application[: _NAME_LIMIT - len(_SUFFIX) - 1]} {_SUFFIX}".strip()
    return {
        **same,
        "endpoints": endpoints,
        "application": name,
        # A lease is written: of several servers, only one that takes writes will do.
        "writable_only": len(endpoints) > 1 or attributes in ("read-write", "primary"),
        "connect_within_s": within if within > 0 else _CONNECT_S,
    }
