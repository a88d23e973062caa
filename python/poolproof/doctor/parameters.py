"""What an engine tells its driver: hosts, time-outs, TLS."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from poolproof._sqlalchemy import arguments_of

if TYPE_CHECKING:
    from sqlalchemy import Engine

__all__ = ["Parameters"]

_ENVIRONMENT: Final = {
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "host": "PGHOST",
    "port": "PGPORT",
    "sslmode": "PGSSLMODE",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}
_LIBPQ: Final = ("psycopg2", "psycopg")
# What each driver calls the database.
_DATABASE: Final = ("dbname", "database")
_PORT: Final = "5432"


class Parameters:
    """The arguments of a driver's `connect`, as the engine gives them.

    Args:
        engine: The engine.
    """

    def __init__(self, engine: Engine) -> None:
        self.driver: str = engine.dialect.driver
        self._engine = engine
        given = arguments_of(engine.pool)
        self.is_known = given is not None
        """False where the application has a creator of its own."""

        self._positional, self._named = given or ((), {})

    def get(self, name: str) -> Any:
        """Return one argument, or what libpq takes in its place; None: nothing.

        Args:
            name: As libpq has it.
        """
        value = self._named.get(name)
        if value is None and self.driver in _LIBPQ:
            value = os.environ.get(_ENVIRONMENT.get(name, ""))
        return value

    def has(self, name: str) -> bool:
        """Tell whether an argument is given, be it None.

        Args:
            name: Its name.
        """
        return name in self._named

    def hosts(self) -> list[tuple[str, int]]:
        """Return the hosts that are tried, with their ports; a socket's folder too."""
        hosts = _words(self.get("hostaddr") or self.get("host"))
        ports = _words(self.get("port")) or [_PORT]
        if len(ports) == 1:
            ports *= max(1, len(hosts))
        return [
            (host, int(port) if port.isdigit() else int(_PORT))
            for host, port in zip(hosts or [""], ports, strict=False)
        ]

    def connect_to(self, database: str) -> Any:
        """Open a DBAPI connection to another database of the same server.

        Args:
            database: Its name.
        """
        named = dict(self._named)
        for name in _DATABASE:
            if name in named:
                named[name] = database
        dialect = self._engine.dialect
        return dialect.connect(*self._positional, **named)


def _words(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, (list, tuple)):
        return [str(one) for one in value]
    return str(value).split(",")
