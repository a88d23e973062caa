"""asyncpg, and a session that it has lost between two statements without knowing it.

The server's goodbye comes to asyncpg while it expects nothing. It drops the message,
refuses the next statement, says goodbye and gives the connection up; a stray answer
meets the same end. What is left is the socket: a server that lives reads the goodbye
and closes, one that was gone before answers with a reset.
"""

from __future__ import annotations

import select
import sys
from typing import TYPE_CHECKING, Any

from sqlalchemy import exc

from poolproof.drivers.base import Driver, number_of
from poolproof.drivers.connect_plan import ConnectPlan, left_until
from poolproof.drivers.conninfo import HINT, conninfo, said, ssl_words

if TYPE_CHECKING:
    from poolproof.drivers.connect_plan import Bound
    from poolproof.drivers.conninfo import Conninfo

__all__ = ["Asyncpg", "meant"]

_REFUSED = "asyncpg.exceptions._base", "InternalClientError"
_NOT_SENT = "cannot switch to state "
_WITHIN_MS = 100
# The shortest time to connect in, in seconds: 0 would be refused.
_LEAST_S = 0.01

# What it has of libpq's words.
_LIKE_LIBPQ = (
    *("host", "port", "user", "password", "passfile", "target_session_attrs"),
    *("service", "servicefile", "krbsrvname", "gsslib"),
)


class Asyncpg(Driver):
    """asyncpg."""

    __slots__ = ()

    calls_password = True

    def __init__(self) -> None:
        """Say what holds for the driver."""
        super().__init__("asyncpg")

    def descriptor(self, connection: Any) -> int | None:
        """Find the descriptor that a connection's transport talks through.

        Args:
            connection: The driver's own connection.
        """
        transport = getattr(connection, "_transport", None)
        if transport is None:
            return None
        return number_of(transport.get_extra_info("socket"))

    def told_pid(self, connection: Any) -> int | None:
        """Return the number that stands for the backend, as it was told.

        Args:
            connection: The driver's own connection.
        """
        pid = connection.get_server_pid()
        return pid if isinstance(pid, int) else None

    def setting(self, connection: Any, name: str) -> str | None:
        """Return a setting that the server has reported.

        Args:
            connection: The driver's own connection.
            name: The setting's name.
        """
        value = getattr(connection.get_settings(), name, None)
        return value if isinstance(value, str) else None

    def is_closed(self, connection: Any) -> bool:
        """Tell whether a connection is closed, or being aborted.

        Args:
            connection: The driver's own connection.
        """
        return bool(connection.is_closed())

    def connect_plan(
        self, dbapi: Any, bound: Bound, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> ConnectPlan | None:
        """Say what it is to be told, so that connecting keeps to a bound.

        Its `timeout` is for all addresses together, and a minute unless told otherwise.

        Args:
            dbapi: The driver's module.
            bound: What holds for this call.
            args: The arguments of its `connect()`.
            keywords: Those by name.
        """
        del dbapi, args
        chosen = keywords.get("timeout")
        limit: float | None = None if chosen is not None else bound.patience
        if bound.due is not None:
            left = max(_LEAST_S, left_until(bound.due))
            limit = left if limit is None else min(limit, left)
        if limit is None or (chosen is not None and 0 < chosen <= limit):
            return None
        return ConnectPlan({**keywords, "timeout": limit}, float(limit))

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
        if args or keywords.get("dsn"):
            raise exc.ArgumentError(f"asyncpg is given a dsn: {HINT}")
        settings = keywords.get("server_settings") or {}
        given = {name: keywords.get(name) for name in _LIKE_LIBPQ} | {
            "dbname": keywords.get("database"),
            "application_name": settings.get("application_name"),
            "sslnegotiation": "direct" if keywords.get("direct_tls") else None,
        }
        context = keywords.get("ssl")
        if isinstance(context, str):
            given["sslmode"] = context
        else:
            given |= ssl_words(context, otherwise=None)
        listed = (list, tuple)
        return conninfo(
            None,
            {
                name: ",".join(map(str, value)) if isinstance(value, listed) else value
                for name, value in said(given).items()
            },
        )

    def explain_error(self, connection: Any, error: BaseException) -> None:
        """Make the end of the session the cause of an error, where it is certain.

        It waits a tenth of a second at most, and only for an error of this kind.

        Args:
            connection: The driver's own connection, as the error has left it.
            error: The driver's exception, or what SQLAlchemy's adapter made of it.
        """
        refused = error if _is_refusal(error) else error.__cause__
        if (
            refused is not None
            and _is_refusal(refused)
            and refused.__cause__ is None
            and str(refused).startswith(_NOT_SENT)
            and _was_reset(connection)
        ):
            # As asyncpg itself says it when the end comes in mid-statement.
            ended = sys.modules["asyncpg"].ConnectionDoesNotExistError
            refused.__cause__ = ended("the session ended before this statement")


def meant(error: BaseException) -> BaseException:
    """Return what was found to be behind an error of asyncpg's, or the error.

    Args:
        error: The driver's exception.
    """
    if _is_refusal(error) and error.__cause__ is not None:
        return error.__cause__
    return error


def _is_refusal(error: BaseException) -> bool:
    kind = type(error)
    return (kind.__module__, kind.__qualname__) == _REFUSED


def _was_reset(connection: Any) -> bool:
    transport = getattr(connection, "_transport", None)
    socket = None if transport is None else transport.get_extra_info("socket")
    number = -1 if socket is None else socket.fileno()
    make = getattr(select, "poll", None)  # Windows has none, nor has gevent
    if number < 0 or make is None:
        return False
    poll = make()
    poll.register(number, 0)  # errors alone
    return any(event & select.POLLERR for _, event in poll.poll(_WITHIN_MS))
