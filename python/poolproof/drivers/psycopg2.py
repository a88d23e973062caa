"""psycopg2."""

from __future__ import annotations

from operator import methodcaller
from typing import TYPE_CHECKING, Any

from poolproof.drivers.libpq import LibpqDriver, ask_version

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Psycopg2"]

# Not a function of Python's: it runs at each checkout and check-in.
_STATUS = methodcaller("get_transaction_status")

_READY = 1  # psycopg2.extensions.STATUS_READY


def _is_reset(connection: Any) -> bool:
    # It can differ from the server's: after a COMMIT that was sent as text, say.
    is_ready: bool = connection.status == _READY
    return is_ready


class Psycopg2(LibpqDriver):
    """psycopg2, and what has its methods."""

    __slots__ = ()

    text_argument = "dsn"
    own_arguments = frozenset(
        {"connection_factory", "cursor_factory", "async", "async_"}
    )

    def __init__(self, status: Callable[[Any], object] = _STATUS) -> None:
        """Make the driver of one class of connections.

        Args:
            status: Says the transaction status.
        """
        super().__init__("psycopg2", status)

    @classmethod
    def of_class(cls, kind: type) -> Psycopg2:
        """Make the driver of a class of connections.

        Args:
            kind: The class. Its own method, called as a function, costs half of a
                methodcaller.
        """
        status = getattr(kind, "get_transaction_status", None)
        driver = cls(status) if callable(status) else cls()
        rollback = getattr(kind, "rollback", None)
        of = getattr(rollback, "__objclass__", None)
        if getattr(of, "__module__", None) == "psycopg2.extensions":
            # It is the driver's, and not a subclass's or a wrapper's.
            driver.is_reset = _is_reset
        return driver

    def listens(self, connection: Any) -> bool:
        """Tell whether a notification has come that nobody has read.

        Args:
            connection: A DBAPI connection.
        """
        return bool(getattr(connection, "notifies", None))

    def is_told_read_only(self, connection: Any) -> bool:
        """Tell whether transactions are to begin read-only.

        Args:
            connection: The driver's own connection.
        """
        return getattr(connection, "readonly", None) is True

    def _read(self, dbapi: Any, text: str) -> Mapping[str, Any]:
        """Take a connection string apart, as the driver does."""
        found: Mapping[str, Any] = dbapi.extensions.parse_dsn(text)
        return found

    def _version(self, dbapi: Any) -> int:
        """Ask for libpq's version."""
        return ask_version(getattr(dbapi, "extensions", None), "libpq_version")

    def _tells_the_session(self, connection: Any) -> bool:
        """Tell whether it says SET when its autocommit is switched.

        It does where it has been given how transactions are to begin.
        """
        return callable(getattr(connection, "set_session", None)) and any(
            getattr(connection, name, None) is not None
            for name in ("isolation_level", "readonly", "deferrable")
        )
