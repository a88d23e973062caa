"""Which backend of the server a connection talks to: its process id there."""

from __future__ import annotations

from typing import Any

from poolproof.drivers import base as drivers

__all__ = ["ask", "pid_of", "remember"]

# On the pool's entry, not in its `info`, which is the application's.
_ATTRIBUTE = "_poolproof_backend_pid"


def remember(entry: Any) -> None:
    """Keep a new connection's backend; a driver forgets it when the connection breaks.

    Args:
        entry: The entry of any pool, with its connection.
    """
    setattr(entry, _ATTRIBUTE, ask(entry.driver_connection))


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


def ask(driver_connection: object) -> int | None:
    """Read the backend's process id out of the driver, without a round trip."""
    if drivers.is_mock(driver_connection):
        return None
    info = getattr(driver_connection, "info", None)  # psycopg2, psycopg
    key = getattr(driver_connection, "_backend_key_data", None)  # pg8000
    get = getattr(driver_connection, "get_server_pid", None)  # asyncpg
    pid: object = None
    if isinstance(key, bytes):
        pid = int.from_bytes(key[:4], "big")
    elif callable(get):
        pid = get()
    elif info is not None:
        pid = getattr(info, "backend_pid", None)
    return pid if isinstance(pid, int) and pid > 0 else None
