"""The sockets under the driver connections, registered so that a fork severs them.

A registration lives as long as its connection is open: through check-ins, check-outs,
and being detached from the pool. It ends after the driver has closed the connection, or
when the connection is collected. In between, a number that the driver has closed and
the system has reused is told apart by its inode, in the fork handler itself.
"""

from __future__ import annotations

import contextlib
import weakref
from typing import TYPE_CHECKING, Any

from poolproof import _native

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["descriptor", "forget_all", "is_severed", "unwatch", "watch"]

# id of the driver connection -> its registration, and what ends that at collection.
_watched: dict[int, tuple[_native.Registration, object]] = {}


class _Ender(weakref.ref[Any]):
    """Ends a registration at the collection of its connection."""

    __slots__ = ("key",)

    key: int


def _collected(ender: _Ender) -> None:
    _watched.pop(ender.key, None)


def descriptor(connection: Any) -> int | None:
    """Find the descriptor that a driver connection talks through.

    psycopg2, psycopg and others have `fileno()`; pg8000 keeps a socket object in
    `_usock`, the MySQL drivers in `_sock`.

    Args:
        connection: A DBAPI connection, or what SQLAlchemy adapts one with.

    Returns:
        The descriptor, or None where the driver shows none (SQLite, stubs).
    """
    for candidate in (
        connection,
        getattr(connection, "_usock", None),
        getattr(connection, "_sock", None),
    ):
        fileno: Callable[[], object] | None = getattr(candidate, "fileno", None)
        if callable(fileno):
            # A driver may refuse, for instance on a closed connection.
            with contextlib.suppress(Exception):
                number = fileno()
                if isinstance(number, int) and number >= 0:
                    return number
    return None


def watch(connection: Any) -> _native.Registration | None:
    """Register the socket of a connection, if it has one.

    Args:
        connection: A DBAPI connection that was just opened in this process.

    Returns:
        The registration, or None where there is no socket.
    """
    number = descriptor(connection)
    if number is None:
        return None
    try:
        registration = _native.Registration(number)
    except (ValueError, OverflowError):  # a file, or no descriptor at all
        return None
    key = id(connection)
    ender = None
    # Without weak references the registration ends when the connection is closed.
    with contextlib.suppress(TypeError):
        ender = _Ender(connection, _collected)
        ender.key = key
    _watched[key] = (registration, ender)
    return registration


def is_severed(connection: Any) -> bool:
    """Tell whether the socket of a connection was severed in this process.

    Args:
        connection: A DBAPI connection.
    """
    found = _watched.get(id(connection))
    return found is not None and found[0].severed


def unwatch(connection: Any) -> None:
    """End the registration of a connection that has been closed.

    Args:
        connection: A DBAPI connection; one that was never watched does no harm.
    """
    found = _watched.pop(id(connection), None)
    if found is not None:
        found[0].end()


def forget_all() -> None:
    """Drop what a parent process registered. The fork handler has severed it all."""
    _watched.clear()
