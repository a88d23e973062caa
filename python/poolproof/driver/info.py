"""What a connection knows of its server without asking it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from poolproof import _native

__all__ = ["ConnectionInfo"]

# libpq's numbers, as psycopg2 and psycopg have them.
_STATUS = {"I": 0, "A": 1, "T": 2, "E": 3, "X": 4}
_NUMBERS = re.compile(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?")


class ConnectionInfo:
    """What the server said when it was connected to, and what it has reported since."""

    __slots__ = ("_wire",)

    def __init__(self, wire: _native.Wire) -> None:
        """Look at a connection.

        Args:
            wire: The bridge's connection.
        """
        self._wire = wire

    @property
    def host(self) -> str:
        """The host's name as it was given, or the folder of the unix socket."""
        return self._wire.host

    @property
    def port(self) -> int:
        """The port."""
        return self._wire.port

    @property
    def user(self) -> str:
        """The user's name."""
        return self._wire.user

    @property
    def dbname(self) -> str:
        """The database's name."""
        return self._wire.database

    @property
    def tls(self) -> str | None:
        """The version of TLS, such as ``TLSv1.3``; None where there is none."""
        return self._wire.tls

    @property
    def backend_pid(self) -> int:
        """The process id that the server has announced; a pooler makes one up."""
        return self._wire.pid

    @property
    def transaction_status(self) -> int:
        """Libpq's number: 0 idle, 1 busy, 2 in a transaction, 3 failed, 4 closed."""
        return _STATUS[self._wire.status]

    @property
    def server_version(self) -> int:
        """The server's version as a number: 150004 for 15.4; 0 where it is not told."""
        found = _NUMBERS.match(self._wire.parameter("server_version") or "")
        if found is None:
            return 0
        first, second, third = (int(part or 0) for part in found.groups())
        ten = 10
        if first >= ten:
            return first * 10_000 + second
        return first * 10_000 + second * 100 + third

    @property
    def timezone(self) -> str | None:
        """The session's time zone, as the server has reported it."""
        return self._wire.parameter("TimeZone")

    def parameter_status(self, name: str) -> str | None:
        """Return a setting that the server reports by itself.

        Args:
            name: Such as ``server_version`` or ``TimeZone``.

        Returns:
            Its value; None where the server does not report it.
        """
        return self._wire.parameter(name)
