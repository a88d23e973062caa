"""What tests of looks and deadlines share: messages made by hand, a stopwatch."""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

import poolproof
from poolproof.fork import sockets

if TYPE_CHECKING:
    from sqlalchemy import Engine
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


def backend(engine: Engine) -> int:
    """Return which session of the server an engine talks to."""
    with engine.connect() as connection:
        return int(connection.scalar(text("select pg_backend_pid()")))


def deadline_in(error: BaseException | None) -> poolproof.DeadlineExceeded:
    """Return the deadline that the chain of causes ends in."""
    while error is not None and not isinstance(error, poolproof.DeadlineExceeded):
        error = error.__cause__
    assert error is not None
    return error


def await_message(connection: Any) -> None:
    """Wait until something from the server lies unread in a driver's connection.

    A notification comes whenever the server's other process gets to it.
    """
    readable, _, _ = select.select([sockets.descriptor(connection)], [], [], 10)
    assert readable, "the server sent nothing"


# Seconds, more than any bound that a test gives and what a busy machine adds to it, and
# less than what it would take otherwise.
SOON = 10.0


class Stopwatch:
    """How long something took, in seconds."""

    def __enter__(self) -> Self:
        self.started = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self.started
