"""Which backend of the server a connection of a pool talks to, kept on its entry."""

from __future__ import annotations

from typing import Any

from poolproof.drivers import known

__all__ = ["pid_of", "remember"]

# On the pool's entry, not in its `info`, which is the application's.
_ATTRIBUTE = "_poolproof_backend_pid"


def remember(entry: Any) -> None:
    """Keep a new connection's backend; a driver forgets it when the connection breaks.

    Args:
        entry: The entry of any pool, with its connection.
    """
    connection = entry.driver_connection
    setattr(entry, _ATTRIBUTE, known.of(connection, None).backend_pid(connection))


def pid_of(entry: object) -> int | None:
    """Say which backend was remembered.

    Args:
        entry: The entry of any pool, or None.

    Returns:
        A process id, or None when the guard has not seen the connect, or the driver
        did not know.
    """
    pid = getattr(entry, _ATTRIBUTE, None)
    return pid if isinstance(pid, int) else None
