"""The sockets under the driver connections, registered so that a fork severs them.

A registration lives as long as its connection is open: through check-ins, check-outs,
and being detached from the pool. It ends after the driver has closed the connection, or
when the connection is collected. In between, a number that was closed, and that the
system has reused, is told apart by its inode: in the fork handler itself, and before
the pool has the driver send anything of the pool's own.
"""

from __future__ import annotations

import contextlib
import weakref
from typing import TYPE_CHECKING, Any

from poolproof import _native
from poolproof.drivers import known

if TYPE_CHECKING:
    from poolproof.drivers.base import Driver

__all__ = [
    "descriptor",
    "end_session",
    "find",
    "forget_all",
    "is_foreign",
    "unwatch",
    "watch",
]

# id of the driver connection -> its socket, and what ends that at collection.
_watched: dict[int, tuple[_native.Socket, object]] = {}


class _Ender(weakref.ref[Any]):
    """Ends a registration at the collection of its connection."""

    __slots__ = ("key",)

    key: int


def _collected(ender: _Ender) -> None:
    found = _watched.get(ender.key)
    # The driver's may outlive its adapter, whose number is another's by then.
    if found is not None and found[1] is ender:
        _watched.pop(ender.key, None)  # another thread may have ended it


def descriptor(connection: Any) -> int | None:
    """Find the descriptor that a driver connection talks through.

    Args:
        connection: A DBAPI connection, or what SQLAlchemy adapts one with.

    Returns:
        The descriptor, or None where the driver shows none (SQLite, stubs, mocks).
    """
    return known.of(connection, None).descriptor(connection)


def watch(
    connection: Any,
    driver: Driver,
    *,
    keep_alive: tuple[int, int, int] | None,
    tcp_user_timeout: float | None,
    user_timeout_lent: bool = False,
) -> _native.Socket | None:
    """Register the socket of a connection, if it has one, and tune it.

    Args:
        connection: A DBAPI connection that was just opened in this process.
        driver: Its driver.
        keep_alive: Seconds of silence, seconds between questions, questions; None
            leaves the system's.
        tcp_user_timeout: Its ``TCP_USER_TIMEOUT`` in seconds, or None.
        user_timeout_lent: Whether its ``TCP_USER_TIMEOUT`` was for connecting alone.

    Returns:
        The socket, or None where there is none.

    Raises:
        OSError: No descriptor or thread is left for the watchdog.
    """
    number = driver.descriptor(connection)
    if number is None:
        return None
    try:
        socket = _native.Socket(
            number, tcp_user_timeout, user_timeout_lent, driver.wire(connection)
        )
    except (ValueError, OverflowError):  # a file, or no descriptor at all
        return None
    if keep_alive is not None:
        idle_s, interval_s, count = keep_alive
        # Where a driver turns them on unless told otherwise, off is chosen.
        socket.keep_alive(idle_s, interval_s, count, driver.keeps_alive)
    key = id(connection)
    ender = _ender(connection)
    if ender is not None:
        ender.key = key
    _watched[key] = (socket, ender)
    return socket


def _ender(connection: Any) -> _Ender | None:
    """Hear of a connection's collection, or of that of what it adapts.

    Returns:
        None where neither knows weak references: the registration ends when the
        connection is closed.
    """
    # SQLAlchemy's adapters know none.
    for one in (connection, getattr(connection, "driver_connection", None)):
        with contextlib.suppress(TypeError):
            return _Ender(one, _collected)
    return None


def find(connection: Any) -> _native.Socket | None:
    """Find the socket of a connection that is watched.

    Args:
        connection: A DBAPI connection.
    """
    found = _watched.get(id(connection))
    return None if found is None else found[0]


def is_foreign(connection: Any) -> bool:
    """Tell whether a driver holds a number that is not its socket's any more.

    Somebody has closed it beside the driver (`os.closerange`, a daemonizing library, a
    double close). By now it may be anything: what the driver sent would arrive there,
    and the driver's closing would close it.

    Args:
        connection: A DBAPI connection.
    """
    socket = find(connection)
    if socket is None or socket.severed or socket.intact:
        return False
    # Other databases' drivers connect anew by themselves; and one that has closed the
    # number itself has none.
    driver = known.of(connection, None)
    return driver.tells and driver.descriptor(connection) is not None


def end_session(connection: Any) -> None:
    """Have the server learn that a connection has ended, and send nothing.

    Args:
        connection: A DBAPI connection.
    """
    socket = find(connection)
    if socket is not None:
        socket.sever()


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
