"""The database that is drilled: one URL, spelled for each driver.

A `Target` is made from what the user typed. Its password stays inside: `repr`,
messages and `redact` never show it, and it travels to other processes on their
standard input only.
"""

from __future__ import annotations

import os
import re
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from poolproof._checks import has_second_at
from poolproof.doctor import secret_words
from poolproof.drill.errors import UsageError
from poolproof.drivers.conninfo import KEYWORDS

if TYPE_CHECKING:
    from collections.abc import Mapping

DRIVERS: Final = ("psycopg2", "psycopg", "pg8000")
"""The drivers that the drill knows, in the order of its table."""

OWN: Final = "poolproof"
"""Our own, which is an experiment yet: it plays where it is asked for by name."""

ASYNCIO: Final = ("asyncpg", "psycopg")
"""Those of asyncio, for the incidents that are about it."""

# Those that take libpq's words.
_LIBPQ: Final = frozenset({"psycopg2", "psycopg", OWN})
_OURS: Final = frozenset({"application_name", "plugin"})
_SOCKET_DIRECTORIES: Final = ("/var/run/postgresql", "/tmp")  # noqa: S108 (libpq's own)
_LOOPBACK: Final = "127.0.0.1"
_DEFAULT_PORT: Final = 5432
_SHAPE: Final = "postgresql://user:password@host:port/database"

_SECOND_AT = (
    "--url: a second @ (what it has is not shown: it may be a piece of the password); "
    "write %40 for an @ in a name or password"
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens: a TCP host and port, or a unix socket's path."""

    host: str = ""
    port: int = _DEFAULT_PORT
    path: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """A PostgreSQL database, and how each driver is told to reach it."""

    url: URL = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read a URL that a person typed.

        Args:
            text: A ``postgresql://`` or ``postgres://`` URL; a driver in it
                (``postgresql+psycopg2``) is ignored, since the drill chooses.

        Returns:
            The target.

        Raises:
            UsageError: The text is no URL, or not one of PostgreSQL. The message
                does not quote it, because it may hold a password.
        """
        if has_second_at(text):
            raise UsageError(_SECOND_AT)
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise UsageError(
                "--url: a byte that is not UTF-8 (not shown: it may be a piece of the "
                "password); write it in UTF-8, or as % and two digits"
            )
        backend = ""
        # What is raised in here quotes the URL, and is not kept as a context either.
        with suppress(ArgumentError, ValueError):
            url = make_url(re.sub(r"^postgres(?=://)", "postgresql", text.strip()))
            backend = url.get_backend_name()
        if not backend:
            raise UsageError(f"--url: not a database URL; it should look like {_SHAPE}")
        if "@" in (url.host or "") + (url.database or ""):
            raise UsageError(_SECOND_AT)  # behind a ?, which SQLAlchemy takes as well
        if backend != "postgresql":
            raise UsageError(
                f"--url: a database of {backend}; the drill needs PostgreSQL: {_SHAPE}"
            )
        return cls(url.set(drivername="postgresql").difference_update_query(_OURS))

    def render(self) -> str:
        """Return the whole URL, password and all, for another process's stdin."""
        return self.url.render_as_string(hide_password=False)

    def shown(self) -> str:
        """Return the URL as it may be shown: host and database, no secrets."""
        safe = self.url.set(query={})
        return safe.render_as_string(hide_password=True)

    def redact(self, text: str) -> str:
        """Return *text* with every spelling of a secret of this URL blotted out."""
        return secret_words.redact(text, secret_words.of_url(self.url, unknown=False))

    def for_driver(self, driver: str) -> tuple[URL, dict[str, Any]]:
        """Return the URL and the connect arguments for one driver.

        Args:
            driver: One of `DRIVERS`, of `ASYNCIO`, or `OWN`.

        Returns:
            What `sqlalchemy.create_engine` wants: a URL and its ``connect_args``.

        Raises:
            UsageError: pg8000 or asyncpg cannot be told what the URL says.
        """
        url = self.url.set(drivername=f"postgresql+{driver}")
        return (url, {}) if driver in _LIBPQ else _for_plain(url, _PLAIN[driver])

    def address(self) -> Address:
        """Return where the server listens, as a proxy needs to know it."""
        hosts = secret_words.values(self.url.query.get("host")) or [self.url.host or ""]
        host, _, port_of_host = hosts[0].split(",")[0].partition(":")
        port = int(
            port_of_host
            or self.url.port
            or (secret_words.values(self.url.query.get("port")) or [""])[0].split(",")[
                0
            ]
            or os.environ.get("PGPORT")
            or _DEFAULT_PORT
        )
        host = host or os.environ.get("PGHOST", "")
        directories = (host,) if host.startswith("/") else _SOCKET_DIRECTORIES
        if not host or host.startswith("/"):
            for directory in directories:
                path = Path(directory) / f".s.PGSQL.{port}"
                if path.exists():
                    return Address(path=str(path), port=port)
        return Address(host=host or "localhost", port=port)

    def without_tls(self) -> Target:
        """Return the same database of a server that is known to speak no TLS.

        pg8000 makes a TLS context for each connection otherwise, before it asks: 30 ms
        of the interpreter's lock, in a trial that measures how late a call returns.
        """
        return Target(self.url.update_query_dict({"sslmode": "disable"}))

    def through(self, port: int, host: str = _LOOPBACK) -> Target:
        """Return the same database, reached through a proxy on this machine.

        Args:
            port: The port where the proxy listens.
            host: The address where it listens.

        Returns:
            A target whose TLS checks, if any, still name the real host.
        """
        address = self.address()
        query = {k: v for k, v in self.url.query.items() if k not in ("host", "port")}
        mode = (secret_words.values(query.get("sslmode")) or [""])[0]
        if mode.startswith("verify-") and not address.path:
            query["hostaddr"] = host
            return Target(self.url.set(host=address.host, port=port, query=query))
        return Target(self.url.set(host=host, port=port, query=query))


@dataclass(frozen=True, slots=True)
class _Plain:
    """A driver that does not take libpq's words, and what it calls the few it knows."""

    name: str
    socket: str
    tls: str
    instead: str

    def path(self, directory: str, port: int) -> str:
        """Name a unix socket as it wants it named."""
        if self.socket == "host":
            return directory
        return f"{directory}/.s.PGSQL.{port}"


_PLAIN: Final = {
    "pg8000": _Plain(
        "pg8000", "unix_sock", "ssl_context", "choose --driver psycopg2 or psycopg"
    ),
    "asyncpg": _Plain("asyncpg", "host", "ssl", "choose --driver psycopg"),
}


def _for_plain(url: URL, driver: _Plain) -> tuple[URL, dict[str, Any]]:
    """Translate libpq's parameters into the arguments of such a driver."""
    arguments: dict[str, Any] = {}
    for name, values in url.query.items():
        value = secret_words.values(values)[0]
        if name == "host" and value.startswith("/"):
            port = url.port or _DEFAULT_PORT
            arguments[driver.socket] = driver.path(value, port)
        elif name == "hostaddr":
            url = url.set(host=value)
        elif name == "sslmode":
            arguments[driver.tls] = _tls(value, url.query, driver.name)
        elif name not in ("sslrootcert", "connect_timeout"):
            # Behind a ? in a password stands a piece of it.
            shown = repr(name) if name in KEYWORDS else "(not shown: a secret, perhaps)"
            raise UsageError(
                f"--url: {driver.name} does not know the parameter {shown};"
                f" leave it out, or {driver.instead}"
            )
    return url.set(query={}), arguments


def _tls(mode: str, query: Mapping[str, str | tuple[str, ...]], driver: str) -> Any:
    """Return what such a driver is told of TLS for a libpq ``sslmode``."""
    if mode == "disable":
        return False
    if mode in ("allow", "prefer"):
        return None
    roots = secret_words.values(query.get("sslrootcert"))
    context = ssl.create_default_context(cafile=roots[0] if roots else None)
    if mode == "verify-full" and "hostaddr" in query:
        raise UsageError(
            f"--url: {driver} cannot check the server's name (sslmode=verify-full)"
            " through the drill's proxy; leave out the driver or the incident"
        )
    if mode != "verify-full":
        context.check_hostname = False
    if not mode.startswith("verify-"):
        context.verify_mode = ssl.CERT_NONE
    return context
