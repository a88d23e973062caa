"""libpq's parameters, made whole as libpq does: environment, password file, defaults.

No error here quotes a value that may be a secret.
"""

from __future__ import annotations

import getpass
import os
import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import exc

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HINT", "PORT", "of_server", "system_roots", "whole"]

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
PORT = "5432"
_CONNECT_S = 10.0
_NAME_LIMIT = 63
_SUFFIX = "poolproof-control"
_READABLE_BY_OTHERS = 0o077
HINT = "pass control_dsn= with a URL or a connection string of its own"


def whole(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fill up with the environment and libpq's defaults."""
    said = {**given, "dbname": given.get("dbname", given.get("database"))}

    def value(name: str, default: str = "") -> str:
        own = said.get(name)
        if own not in (None, ""):
            return str(own)
        return os.environ.get(_ENVIRONMENT.get(name, ""), "") or default

    for name, why in _REFUSED.items():
        if value(name):
            raise exc.ArgumentError(f"{name} is set, but {why} here: {HINT}")
    user = value("user") or getpass.getuser()
    database = value("dbname") or user
    home = Path.home() / ".postgresql"
    roots = value("sslrootcert") or _there(home / "root.crt")
    certificate = value("sslcert") or _there(home / "postgresql.crt")
    key = value("sslkey") or _there(home / "postgresql.key")
    return of_server(
        endpoints=_endpoints(value, user, database),
        user=user,
        database=database,
        application=value("application_name") or value("fallback_application_name"),
        options=value("options") or None,
        sslmode=value("sslmode", "prefer"),
        sslrootcert=system_roots() if roots == "system" else roots or None,
        identity=(certificate, key) if certificate and key else None,
        attributes=value("target_session_attrs", "any"),
        connect_timeout=value("connect_timeout"),
    )


def _there(path: Path) -> str:
    return str(path) if path.exists() else ""


def system_roots() -> str:
    """Return the file of root certificates that the system has for OpenSSL.

    Raises:
        ArgumentError: There is none.
    """
    found = ssl.get_default_verify_paths().cafile
    if not found:
        raise exc.ArgumentError(
            "sslrootcert=system, but this Python knows no file of root certificates: "
            "name one"
        )
    return found


def _endpoints(value: Any, user: str, database: str) -> list[Any]:
    """Return the places to try, with the password for each."""
    ports = value("port", PORT).split(",")
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
        port = ports[n if len(ports) > 1 else 0] or PORT
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
            field in ("*", value) for field, value in zip(fields, wanted, strict=False)
        ):
            return fields[len(wanted)]
    return None


def of_server(
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
