"""What lies unread in a connection's socket, by kind and length, never by content.

The kinds are those of PostgreSQL's protocol, version 3 (its manual, "Message Formats").
"""

from __future__ import annotations

# The class beneath Python's sockets, which gevent and eventlet leave as it is.
import _socket
import contextlib
import os
import struct
from typing import Final

from poolproof.fork import sockets

__all__ = ["unread"]

_MOST_BYTES: Final = 65536
_MOST_NAMED: Final = 16
_HEAD: Final = struct.Struct("!cI")
_LENGTH_ITSELF: Final = 4
# A stream that is looked at in the middle of a row begins with what is no head: text,
# taken for a length, is more than this.
_LONGEST: Final = 1 << 24
_TLS: Final = frozenset({20, 21, 22, 23})
_TLS_HEAD: Final = 5
_NAMES: Final = {
    b"1": "ParseComplete",
    b"2": "BindComplete",
    b"3": "CloseComplete",
    b"A": "NotificationResponse",
    b"C": "CommandComplete",
    b"D": "DataRow",
    b"E": "ErrorResponse",
    b"G": "CopyInResponse",
    b"H": "CopyOutResponse",
    b"I": "EmptyQueryResponse",
    b"K": "BackendKeyData",
    b"N": "NoticeResponse",
    b"R": "Authentication",
    b"S": "ParameterStatus",
    b"T": "RowDescription",
    b"W": "CopyBothResponse",
    b"Z": "ReadyForQuery",
    b"c": "CopyDone",
    b"d": "CopyData",
    b"n": "NoData",
    b"s": "PortalSuspended",
    b"t": "ParameterDescription",
}


def unread(connection: object) -> tuple[str, ...]:
    """Say what the server has sent that nobody has read.

    What the driver has taken out of the socket already is not seen.

    Args:
        connection: A DBAPI connection whose socket is open.

    Returns:
        Each message's name and its length in bytes: ``"DataRow 41"``; under TLS, and
        where it is no message, the number of bytes alone. Empty when nothing is there.
    """
    return described(_peek(connection))


def described(data: bytes) -> tuple[str, ...]:
    """Name the messages in a piece of a stream that begins with one.

    Args:
        data: Bytes that a server has sent.
    """
    if not data:
        return ()
    if data[0] in _TLS and data[1:2] == b"\3":
        return (f"{len(data)} bytes of TLS",)
    found: list[str] = []
    at = 0
    while at + _HEAD.size <= len(data) and len(found) < _MOST_NAMED:
        kind, length = _HEAD.unpack_from(data, at)
        name = _NAMES.get(kind)
        if name is None or not _LENGTH_ITSELF <= length <= _LONGEST:
            break
        found.append(f"{name} {length}")
        at += 1 + length
    if at < len(data):
        found.append(f"{len(data) - at} bytes more")
    return tuple(found)


def _peek(connection: object) -> bytes:
    """Look at what lies in the socket, and leave it there; never wait for it."""
    number = sockets.descriptor(connection)
    if number is None:
        return b""
    with contextlib.suppress(OSError):
        blocks = os.get_blocking(number)
        copy = os.dup(number)  # Python closes the number that it is given
        try:
            looking = _socket.socket(fileno=copy)
        except OSError:
            os.close(copy)
            raise
        try:
            # One that is made under socket.setdefaulttimeout() would wait as long.
            looking.settimeout(0)
            return looking.recv(_MOST_BYTES, _socket.MSG_PEEK)
        finally:
            looking.close()
            os.set_blocking(number, blocks)  # the copy has shared it
    return b""
