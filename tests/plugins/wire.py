"""Messages of PostgreSQL's protocol, made by hand; waiting for some; a stopwatch."""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING, Any

from poolproof import sockets

if TYPE_CHECKING:
    from typing_extensions import Self


def message(kind: bytes, body: bytes) -> bytes:
    """Make a message of the protocol."""
    return kind + (len(body) + 4).to_bytes(4, "big") + body


def answer(value: str) -> bytes:
    """Make a whole answer to some simple query, with one row and one column ``n``."""
    text = value.encode()
    column = b"n\0" + bytes(6) + (25).to_bytes(4, "big") + b"\xff\xff" + bytes(6)
    return (
        message(b"T", b"\0\1" + column)
        + message(b"D", b"\0\1" + len(text).to_bytes(4, "big") + text)
        + message(b"C", b"SELECT 1\0")
        + message(b"Z", b"I")
    )


def await_message(connection: Any) -> None:
    """Wait until something from the server lies unread in a driver's connection.

    A notification comes whenever the server's other process gets to it.
    """
    readable, _, _ = select.select([sockets.descriptor(connection)], [], [], 10)
    assert readable, "the server sent nothing"


class Stopwatch:
    """How long something took, in seconds."""

    def __enter__(self) -> Self:
        self.started = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self.started
