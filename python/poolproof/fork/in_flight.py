"""Connections that are being opened where a fork copies whoever opens them.

Greenlets go on in a child, also one whose driver is in the middle of connecting. A
driver shows no socket before it has connected, so the fork handler knows of none, and
both processes would speak on it. A child finds it by two signs: it was not there when
the driver began, and it leads to the server's port, or still waits to be connected.
"""

from __future__ import annotations

import _socket
import os
import stat
from typing import TYPE_CHECKING, Any

from poolproof import _native
from poolproof.drivers.conninfo import PORT
from poolproof.drivers.server_params import from_dsn, from_pool

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from sqlalchemy.pool import Pool
    from typing_extensions import Self

    from poolproof.drivers.server_params import ControlDsn

__all__ = ["Opening", "ports", "sever_all"]

# Where the system lists the open descriptors of a process: Linux, the BSDs and macOS.
_LISTS = ("/proc/self/fd", "/dev/fd")
_LIST = next((path for path in _LISTS if os.path.isdir(path)), None)  # noqa: PTH112
# Where Linux says the state of a TCP connection: the first byte of its TCP_INFO.
_TCP_INFO = getattr(_socket, "TCP_INFO", None)
_SYN_SENT = 2
_TCP = (_socket.AF_INET, _socket.AF_INET6)
_DEFAULT = frozenset({int(PORT)})

_Files = dict[int, tuple[int, int]]


class Opening:
    """The time that a driver takes to connect, for a caller who may be a greenlet."""

    __slots__ = ("_before", "_ports")

    def __init__(self, ports: Callable[[], frozenset[int]]) -> None:
        """Prepare to look.

        Args:
            ports: Called after a fork: the ports of the server that is connected to.
        """
        self._ports = ports
        self._before: _Files = {}

    def __enter__(self) -> Self:
        """Remember what is open before."""
        self._before = _open_files()
        _openings.add(self)
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Forget it: the driver shows its socket now, or has closed it."""
        _openings.discard(self)

    def sever(self) -> None:
        """Make the child's copy of what the driver has opened a dead end."""
        ports = self._ports()
        for number, identity in _open_files().items():
            if self._before.get(number) != identity and _leads_to(number, ports):
                _native.sever(number)


_openings: set[Opening] = set()


def sever_all() -> None:
    """In a child, before any greenlet goes on: take nothing from the parent's drivers.

    The drivers meet an end of file, and the pool connects anew.
    """
    for opening in list(_openings):
        opening.sever()


def _open_files() -> _Files:
    """Return what is open, by descriptor; nothing where the system has no list."""
    found = {}
    for name in os.listdir(_LIST) if _LIST else ():  # noqa: PTH208
        number = int(name)
        try:
            state = os.fstat(number)
        except OSError:  # the list's own descriptor
            continue
        if stat.S_ISSOCK(state.st_mode):
            found[number] = (state.st_dev, state.st_ino)
    return found


def ports(pool: Pool, dialect: Any, dsn: ControlDsn | None) -> frozenset[int]:
    """Return the server's ports: as the engine is told, or else libpq's default.

    Args:
        pool: The engine's pool.
        dialect: Its dialect.
        dsn: Its `control_dsn`.
    """
    try:
        # What a function says is not asked for here: the ports seldom change.
        text = dsn if isinstance(dsn, str) else None
        server = from_pool(pool, dialect) if text is None else from_dsn(text)
    except Exception:  # noqa: BLE001 - a creator of its own, or a driver's word on its arguments
        said = os.environ.get("PGPORT", "").split(",")
        return frozenset(int(port) for port in said if port.isdigit()) or _DEFAULT
    return frozenset(port for _host, _address, port in server.places())


def _leads_to(number: int, ports: frozenset[int]) -> bool:
    """Tell whether a socket is connected to one of the ports, or is being connected."""
    socket = _socket.socket(fileno=number)
    try:
        if socket.type != _socket.SOCK_STREAM:
            return False
        try:
            peer = socket.getpeername()
        except OSError:
            return _waits_to_be_connected(socket)
        if socket.family == _socket.AF_UNIX:
            _, _, port = os.fsdecode(peer).rpartition("/.s.PGSQL.")
            return port.isdigit() and int(port) in ports
        return socket.family in _TCP and peer[1] in ports
    finally:
        socket.detach()


def _waits_to_be_connected(socket: _socket.socket) -> bool:
    """Tell whether a socket waits for the first answer of its peer, whoever that is."""
    if socket.family not in _TCP or _TCP_INFO is None:
        return False
    state: int = socket.getsockopt(_socket.IPPROTO_TCP, _TCP_INFO, 1)[0]
    return state == _SYN_SENT
