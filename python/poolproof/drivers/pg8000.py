"""pg8000, which speaks the protocol in Python and reads ahead into its own buffer."""

from __future__ import annotations

import functools
import math
import sys
from typing import TYPE_CHECKING, Any

from sqlalchemy import exc

from poolproof.drivers.base import Driver, number_of
from poolproof.drivers.connect_plan import ConnectPlan, count_addresses, left_until
from poolproof.drivers.conninfo import HINT, conninfo, said, ssl_words
from poolproof.drivers.interruption import is_interruption, passed

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolproof.drivers.connect_plan import Bound
    from poolproof.drivers.conninfo import Conninfo

__all__ = ["Pg8000"]

# The bytes of the protocol's ReadyForQuery.
_IDLE, _FAILED = b"I", b"E"

# 0 would tell a socket not to wait at all.
_LEAST_S = 0.01


def _status(connection: Any) -> object:
    # It forgets the status of a session that has just begun, which is idle.
    status = connection._transaction_status
    return _IDLE if status is None else status


class Pg8000(Driver):
    """pg8000."""

    __slots__ = ()

    def __init__(self) -> None:
        """Say what holds for the driver."""
        super().__init__(
            "pg8000", _status, idle=_IDLE, failed=_FAILED, keeps_alive=True
        )

    def descriptor(self, connection: Any) -> int | None:
        """Find the descriptor, which a socket of Python's has.

        Args:
            connection: A DBAPI connection.
        """
        return number_of(getattr(connection, "_usock", None))

    def told_pid(self, connection: Any) -> int | None:
        """Read the number of the backend out of what the server has told.

        Args:
            connection: The driver's own connection.
        """
        key = getattr(connection, "_backend_key_data", None)
        return int.from_bytes(key[:4], "big") if isinstance(key, bytes) else None

    def setting(self, connection: Any, name: str) -> str | None:
        """Return a setting that the server has reported.

        Args:
            connection: The driver's own connection.
            name: The setting's name.
        """
        kept = getattr(connection, "parameter_statuses", None)
        if not isinstance(kept, dict):
            return None
        value = kept.get(name, kept.get(name.encode()))
        if isinstance(value, bytes):
            return value.decode("ascii", "replace")
        return value if isinstance(value, str) else None

    def is_of_another_hub(self, connection: Any) -> bool:
        """Tell whether gevent can wait for the socket in another thread alone.

        gevent ties a socket of Python's to the thread that has opened it. In another
        one a call goes well for as long as nothing has to be waited for.

        Args:
            connection: A DBAPI connection.
        """
        hub = getattr(getattr(connection, "_usock", None), "hub", None)
        gevent = sys.modules.get("gevent")
        return hub is not None and gevent is not None and gevent.get_hub() is not hub

    def listens(self, connection: Any) -> bool:
        """Tell whether a notification has come that nobody has read.

        Args:
            connection: A DBAPI connection.
        """
        return bool(getattr(connection, "notifications", None))

    def connect_plan(
        self, dbapi: Any, bound: Bound, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> ConnectPlan | None:
        """Bound each address that it tries, in its `timeout`.

        Args:
            dbapi: The driver's module.
            bound: What holds for this call.
            args: The arguments of its `connect()`.
            keywords: Those by name.
        """
        del dbapi
        chosen = keywords.get("timeout")
        if args or keywords.get("sock") is not None:
            return None
        if chosen is not None and not isinstance(chosen, (int, float)):
            return None  # it is the driver's to refuse
        count = 1
        if bound.due is not None and keywords.get("unix_sock") is None:
            count = count_addresses(str(keywords.get("host", "localhost")))
        share: float | None = bound.patience if chosen is None else None
        if bound.due is not None:
            left = round(max(_LEAST_S, left_until(bound.due) / count), 3)
            share = left if share is None else min(share, left)
        if share is None or (chosen is not None and chosen <= share):
            return ConnectPlan(keywords, None)

        def afterwards(connection: Any) -> None:
            connection._usock.settimeout(chosen)

        told = {**keywords, "timeout": share}
        return ConnectPlan(told, share * count, afterwards=afterwards)

    def server_params(
        self, dbapi: Any, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Conninfo:
        """Say which server it would connect to, and how.

        Args:
            dbapi: The driver's module.
            args: The arguments of its `connect()`.
            keywords: Those by name.

        Raises:
            ArgumentError: It cannot be known.
        """
        del dbapi
        if args or keywords.get("sock") is not None:
            raise exc.ArgumentError(f"pg8000 is given arguments by position: {HINT}")
        timeout = keywords.get("timeout")
        given = {
            "user": keywords.get("user"),
            "password": keywords.get("password"),
            "dbname": keywords.get("database"),
            "host": keywords.get("host") or "localhost",
            "port": keywords.get("port"),
            "application_name": keywords.get("application_name"),
            "replication": keywords.get("replication"),
            "connect_timeout": None if timeout is None else math.ceil(timeout),
            **ssl_words(keywords.get("ssl_context"), otherwise="prefer"),
        }
        path = keywords.get("unix_sock")
        if path:
            given["host"], _, given["port"] = str(path).rpartition("/.s.PGSQL.")
            if not given["port"].isdigit():
                raise exc.ArgumentError(f"unix_sock has an unusual name: {HINT}")
        return conninfo(None, said(given), is_libpq=False)

    def unsent(self, connection: Any) -> Any:
        """Return the file through which it writes.

        pg8000 closes its socket and drops the file. What could not be sent is then
        tried again when the collector comes, and Python 3.13 reports that on standard
        error.

        Args:
            connection: A DBAPI connection.

        Returns:
            The file, to be closed after the connection.
        """
        return connection._sock

    def in_own_words(
        self, verb: Callable[..., Any], dialect: Any
    ) -> Callable[..., Any]:
        """Have it say in its own words that the network has failed.

        Where it begins to read an answer it lets the system's error through, which
        SQLAlchemy does not take for one of the driver's: it would reach the application
        bare. Elsewhere it raises its `InterfaceError`.

        Args:
            verb: A method of a dialect.
            dialect: The dialect.
        """

        @functools.wraps(verb)
        def in_words(*args: Any, **kwargs: Any) -> Any:
            try:
                return verb(*args, **kwargs)
            except OSError as error:
                if not _is_networks(error):
                    raise
                # No frame that it passes may hold it, or the two would keep each other.
                raise _in_words(error, dialect) from error

        return in_words

    def translated(self, error: OSError, dialect: Any) -> BaseException | None:
        """Say in its own words that the network has failed; see `in_own_words`.

        Args:
            error: An error of the system.
            dialect: The dialect in whose driver it was raised.
        """
        if not _is_networks(error):
            return None
        told = _in_words(error, dialect)
        told.__cause__ = error
        return told


def _is_networks(error: OSError) -> bool:
    """Tell whether an error of the network was let through.

    A handler of a signal may have raised it: TimeoutError is of the system.
    """
    return not is_interruption(error) and _is_of_reading(error)


def _in_words(error: BaseException, dialect: Any) -> BaseException:
    """Make the driver's error, which knows what the other does: what was being done."""
    told: BaseException = dialect.dbapi.InterfaceError("network error")
    vars(told).update(vars(error))
    return told


def _is_of_reading(error: BaseException) -> bool:
    """Tell whether an error is from where answers are read."""
    return any(
        frame.f_code.co_name == "_read"
        and frame.f_globals.get("__name__") == "pg8000.core"
        for frame in passed(error)
    )
