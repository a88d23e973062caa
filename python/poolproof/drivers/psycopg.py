"""psycopg, version 3: its connections, and those for asyncio."""

from __future__ import annotations

import threading
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from poolproof.drivers.libpq import LibpqDriver, ask_version

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Psycopg"]

# Not a function of Python's: it runs at each checkout and check-in.
_STATUS = attrgetter("pgconn.transaction_status")

# Within the first two `rollback` raises, and it ends the third's aborted commands.
_IN_THE_WAY = ("_num_transactions", "_tpc", "_pipeline")


def _is_reset(connection: Any) -> bool:
    return not (connection._num_transactions or connection._tpc or connection._pipeline)


class Psycopg(LibpqDriver):
    """psycopg."""

    __slots__ = ()

    text_argument = "conninfo"
    own_arguments = frozenset(
        {
            *("autocommit", "prepare_threshold", "context", "row_factory"),
            *("cursor_factory", "server_cursor_factory"),
        }
    )

    def __init__(self, *, locks: bool, is_own: bool = False) -> None:
        """Make the driver of connections that have a lock, or of those without.

        Args:
            locks: Whether they have one that says whether it is locked.
            is_own: Whether their `rollback` is psycopg's, as it is known.
        """
        super().__init__("psycopg", _STATUS, locks=locks)
        if is_own:
            self.is_reset = _is_reset

    @staticmethod
    def rolls_back(connection: Any) -> bool:
        """Tell whether a connection's `rollback` is psycopg's, as it is known.

        Args:
            connection: A DBAPI connection.
        """
        rollback = getattr(type(connection), "rollback", None)
        return getattr(rollback, "__module__", None) == "psycopg.connection" and all(
            hasattr(connection, name) for name in _IN_THE_WAY
        )

    def is_closed(self, connection: Any) -> bool:
        """Tell whether a connection is closed or broken.

        Args:
            connection: The driver's own connection.
        """
        return super().is_closed(connection) or bool(
            getattr(connection, "broken", False)
        )

    def is_suspended(self, connection: Any) -> bool:
        """Tell whether a stream, a COPY or `notifies()` was not read to its end.

        What is suspended there holds the connection's lock, and the next call would
        wait for it. A pipeline is in the middle of commands by its nature.

        Args:
            connection: A DBAPI connection.
        """
        if super().is_suspended(connection):
            return not self.is_piped(connection)
        return self.locks and bool(connection.lock.locked())

    def is_piped(self, connection: Any) -> bool:
        """Tell whether a pipeline was entered and not left.

        Args:
            connection: A DBAPI connection.
        """
        return getattr(connection, "_pipeline", None) is not None

    def listens(self, connection: Any) -> bool:
        """Tell whether a notification has come, or something is called at one.

        Args:
            connection: A DBAPI connection.
        """
        return any(
            bool(getattr(connection, name, None))
            for name in ("_notify_handlers", "_notifies_backlog")
        )

    def is_told_read_only(self, connection: Any) -> bool:
        """Tell whether transactions are to begin read-only.

        Args:
            connection: The driver's own connection.
        """
        return getattr(connection, "read_only", None) is True

    def _read(self, dbapi: Any, text: str) -> Mapping[str, Any]:
        """Take a connection string apart, as the driver does."""
        found: Mapping[str, Any] = dbapi.conninfo.conninfo_to_dict(text)
        return found

    def _version(self, dbapi: Any) -> int:
        """Ask for libpq's version."""
        return ask_version(getattr(dbapi, "pq", None), "version")

    def prepare_nothing(self, connection: Any) -> Any:
        """Have it neither prepare nor count what is asked next.

        Args:
            connection: A DBAPI connection.

        Returns:
            The threshold, for `prepare_again`.
        """
        threshold = getattr(connection, "prepare_threshold", None)
        if threshold is not None:
            connection.prepare_threshold = None
        return threshold

    def prepare_again(self, connection: Any, threshold: Any) -> None:
        """Undo `prepare_nothing`.

        Args:
            connection: The same connection.
            threshold: What that returned.
        """
        if threshold is not None:
            connection.prepare_threshold = threshold

    def forget_prepared(self, connection: Any) -> None:
        """Empty the list of what it has prepared: the server has forgotten it.

        Args:
            connection: A DBAPI connection.
        """
        prepared = getattr(connection, "_prepared", None)
        if prepared is not None:
            prepared.clear()
            # That notes a DEALLOCATE ALL: for nothing, and too late for what comes
            # next.
            getattr(prepared, "_to_flush", []).clear()

    def abandon(self, connection: Any) -> None:
        """End a connection in whose middle something is suspended, without waiting.

        Args:
            connection: A DBAPI connection whose socket is shut.
        """
        if hasattr(connection, "lock"):
            # What holds the other one frees that.
            connection.lock = threading.Lock()
        super().abandon(connection)
