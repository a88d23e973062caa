"""A scripted server that goes away and comes back, and callers who look on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from plugins.dbapi import OperationalError

if TYPE_CHECKING:
    import threading


class Server:
    """What the scripted driver connects to.

    Attributes:
        is_up: Whether attempts succeed.
        attempts: When each attempt began and ended.
        entered: How many attempts have begun.
        hold: None, or an event that attempts wait for before they end.
    """

    def __init__(self) -> None:
        self.is_up = False
        self.attempts: list[tuple[float, float]] = []
        self.entered = 0
        self.hold: threading.Event | None = None

    def connect(self, _connection: object) -> None:
        """Do what the script's step ``connect`` does."""
        self.entered += 1
        began = time.monotonic()
        up, hold = self.is_up, self.hold
        if hold is not None:
            assert hold.wait(10)
        self.attempts.append((began, time.monotonic()))
        if not up:
            raise OperationalError("the server is down")


def fail_once(pool: Any) -> None:
    """Have one attempt to connect fail, whether or not callers would rather wait."""
    connecting = pool._connecting
    patience, connecting._retry_for = connecting._retry_for, 0.0
    with pytest.raises(OperationalError):
        pool.connect()
    connecting._retry_for = patience


def try_to_connect(pool: Any) -> Any:
    """Return a connection, or the error in its place."""
    try:
        return pool.connect()
    except Exception as error:
        return error.with_traceback(None)


def queued(pool: Any) -> int:
    """Return how many callers wait for an attempt to be due, or for another's."""
    return len(pool._connecting.bells)


def under_way(pool: Any) -> int:
    """Return how many attempts to connect are under way."""
    return int(pool._connecting._gate.snapshot().lent)


def postpone(pool: Any, seconds: float = 60.0) -> None:
    """Take the server for away, the next attempt due later than the test takes."""
    pool._connecting._is_away = True
    pool._connecting._next_at = time.monotonic() + seconds


def try_now(pool: Any) -> None:
    """Have an attempt due at once, as with QueuePool it always is."""
    connecting = getattr(pool, "_connecting", None)
    if connecting is not None:
        connecting._next_at = 0.0
