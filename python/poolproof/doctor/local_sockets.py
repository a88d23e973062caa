"""The TCP sockets of this machine and the processes that have them: Linux's /proc."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import ipaddress
import os
import re
import socket
from pathlib import Path
from typing import Final

__all__ = ["LocalSockets", "is_address_here", "name_of"]

_PROC: Final = Path("/proc")
_TABLES: Final = ("net/tcp", "net/tcp6")
_SOCKET: Final = re.compile(r"socket:\[(\d+)\]")
_ESTABLISHED: Final = "01"


@dataclasses.dataclass(frozen=True, slots=True)
class _Entry:
    port: int
    peer: str
    peer_port: int
    is_established: bool
    inode: int


class LocalSockets:
    """A look at the machine, as far as this user may look.

    Attributes:
        unreadable: Processes whose descriptors this user may not see.
    """

    def __init__(self) -> None:
        """Look.

        Raises:
            OSError: This is no Linux, or /proc is not there.
        """
        self.unreadable = 0
        self._entries: list[_Entry] = []
        for table in _TABLES:
            path = _PROC / table
            if path.exists() or table == _TABLES[0]:
                lines = path.read_text(encoding="ascii").splitlines()[1:]
                self._entries += [_entry(line) for line in lines]
        self._owners: dict[int, list[int]] = {}
        for process in _PROC.iterdir():
            if process.name.isdigit():
                self._look_at(int(process.name))

    def _look_at(self, process: int) -> None:
        # Without paths as objects: there are tens of thousands of descriptors.
        folder = f"{_PROC}/{process}/fd"
        try:
            descriptors = os.listdir(folder)  # noqa: PTH208
        except PermissionError:
            self.unreadable += 1
            return
        except OSError:
            return  # it has ended meanwhile
        found = set()
        for one in descriptors:
            with contextlib.suppress(OSError):
                target = os.readlink(f"{folder}/{one}")  # noqa: PTH115
                if match := _SOCKET.fullmatch(target):
                    found.add(int(match[1]))
        for inode in found:
            self._owners.setdefault(inode, []).append(process)

    def to(self, address: str, port: int) -> dict[int, list[int]]:
        """Return the connections of this machine to a server.

        Args:
            address: The server's.
            port: The server's.

        Returns:
            For each connection's own port the processes that have it; empty where none
            that this user may see does.
        """
        return {
            one.port: sorted(self._owners.get(one.inode, []))
            for one in self._entries
            if one.is_established and (one.peer, one.peer_port) == (address, port)
        }

    def has_connection(self, port: int, peer_port: int) -> bool:
        """Tell whether a connection of this machine is open, whoever has it.

        Args:
            port: Its own port.
            peer_port: The other end's.
        """
        return any(
            one.is_established
            and one.inode
            and (one.port, one.peer_port) == (port, peer_port)
            for one in self._entries
        )


def _entry(line: str) -> _Entry:
    words = line.split()
    port = words[1].partition(":")[2]
    peer, _, peer_port = words[2].partition(":")
    return _Entry(
        int(port, 16),
        _address(peer),
        int(peer_port, 16),
        words[3] == _ESTABLISHED,
        int(words[9]),
    )


@functools.lru_cache(maxsize=1024)
def _address(digits: str) -> str:
    """Read an address as the kernel writes it: words of 32 bits, lowest byte first."""
    raw = bytes.fromhex(digits)
    words = [raw[start : start + 4][::-1] for start in range(0, len(raw), 4)]
    address = ipaddress.ip_address(b"".join(words))
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def is_address_here(address: str) -> bool:
    """Tell whether an address is one of this machine's.

    Args:
        address: As the server writes it.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    family = socket.AF_INET if parsed.version == 4 else socket.AF_INET6  # noqa: PLR2004
    with socket.socket(family, socket.SOCK_DGRAM) as asked:
        try:
            asked.bind((address, 0))
        except OSError:
            return False
    return True


def name_of(process: int) -> str:
    """Return a process's short name, which holds no argument of it.

    Args:
        process: Its id.
    """
    try:
        name = (_PROC / str(process) / "comm").read_text().strip()
    except (OSError, UnicodeDecodeError):
        name = "ended"
    return f"{process} ({name})"
