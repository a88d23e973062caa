"""Scoped sessions that are removed whatever happens."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from poolproof._log import Log

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["remove"]

_log = Log("poolproof.integrations")


def remove(session: Any) -> None:
    """Remove the scope's session, also when its rollback fails.

    `scoped_session.remove()` closes the session and then forgets it. When the close
    raises, because the server went away, the session stays: the next request that gets
    the same scope inherits it. And the connections to other databases that the close
    has not reached stay out; `Session.invalidate()` does not know them any more.

    Args:
        session: A `scoped_session`.
    """
    if not session.registry.has():
        return
    connections = _connections(session)
    try:
        session.remove()
    except Exception as error:  # noqa: BLE001 - of the driver, or a listener
        _log.warning(
            "The session could not be closed in order; its connections were closed one "
            "by one: %r",
            error,
        )
        for connection in connections:
            _close(connection)
    finally:
        session.registry.clear()


def _connections(session: Any) -> list[Connection]:
    """Find the connections that a session has taken out itself."""
    transaction = session.registry().get_transaction()
    found = {} if transaction is None else getattr(transaction, "_connections", {})
    return [
        connection
        for connection, _transaction, _commits, is_own in set(found.values())
        if is_own
    ]


def _close(connection: Connection) -> None:
    try:
        connection.close()
    except Exception:  # noqa: BLE001 - of the driver, or a listener
        with contextlib.suppress(Exception):
            connection.invalidate()
        with contextlib.suppress(Exception):
            connection.close()
