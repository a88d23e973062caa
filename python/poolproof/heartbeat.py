"""A statement that the control plane runs again and again: this process is alive.

It needs neither the application's pool nor the interpreter, so a busy process does not
look dead. For the same reason it would go on for a process that is stuck: with
`stale_after` it beats only while the application says that it works.
"""

from __future__ import annotations

import datetime as dt
import decimal
import os
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import exc

from poolproof import _native, parameters
from poolproof.control import finish, refused, server_of
from poolproof.errors import LeaseForked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Self

__all__ = ["STOP_S", "Beats", "Heartbeat", "HeartbeatBase"]

_LEAST_S = 0.1
_MOST_S = 1e9
# How long whoever stops it waits for its end.
STOP_S = 2.0
_WRITTEN_AS_THEY_ARE = (int, float, decimal.Decimal, str, uuid.UUID)
_WRITTEN_IN_ISO = (dt.datetime, dt.date, dt.time)


class Beats(NamedTuple):
    """What a heartbeat has done.

    Attributes:
        beats: Statements that the server carried out.
        failures: Attempts that failed.
        last_error: Why the last attempt failed; None when it did not.
        is_stale: Whether it rests, because `beat` was not called in time.
    """

    beats: int
    failures: int
    last_error: str | None
    is_stale: bool


class HeartbeatBase:
    """A heartbeat without the waiting: `Heartbeat` and `AsyncHeartbeat` add it."""

    def __init__(
        self,
        bind: Any,
        statement: str,
        values: Sequence[Any] = (),
        *,
        every: float = 10.0,
        stale_after: float | None = None,
        control_dsn: str | None = None,
    ) -> None:
        """Describe a heartbeat. Connects to nothing yet.

        Args:
            bind: The engine of the database, or what has one as its attribute
                ``engine``.
            statement: One statement; ``$1``, ``$2`` … stand for the values.
            values: Text, numbers, bools, UUIDs, dates, times, None.
            every: Between two beats, in seconds, 0.1 or more.
            stale_after: Rest when `beat` was not called for so long, in seconds; None
                beats for as long as the process lives.
            control_dsn: As for `Lease`.

        Raises:
            ArgumentError: A value is not what it must be.
        """
        if not str(statement).strip():
            raise exc.ArgumentError("a heartbeat needs a statement")
        for name, value, none in (
            ("every", every, False),
            ("stale_after", stale_after, True),
        ):
            meaning = f"seconds, {_LEAST_S:g} to {_MOST_S:g}" + none * ", or None"
            parameters.seconds(
                name, value, minimum=_LEAST_S, meaning=meaning, none_allowed=none
            )
            if value is not None and value > _MOST_S:
                raise exc.ArgumentError(f"{name} is {value!r}, but must be {meaning}")
        self._bind = bind
        self._statement = statement
        self._values = [_written(n, value) for n, value in enumerate(values, 1)]
        self._every = float(every)
        self._stale_after = stale_after
        self._control_dsn = control_dsn
        self._native: _native.Heartbeat | None = None
        self._pid = os.getpid()

    @contextmanager
    def _starting(self) -> Iterator[_native.Heartbeat]:
        """Start it; the block waits for its first beat."""
        server = server_of(self._bind, self._control_dsn)
        self._pid = os.getpid()
        try:
            native = _native.Heartbeat(
                server,
                statement=self._statement,
                values=self._values,
                every_s=self._every,
                stale_after_s=self._stale_after,
            )
        except _native.Refused as error:
            raise refused(error) from None
        self._native = native
        try:
            yield native
            native.take()
        except BaseException as error:
            if self._native is native:  # nobody has started it anew since
                self._native = None
            native.leave()
            if isinstance(error, _native.Refused):
                raise refused(error) from None
            raise

    def _leave(self) -> _native.Heartbeat | None:
        """Begin to end it; None when it does not run in this process."""
        native, self._native = self._native, None
        if native is None or not native.is_ours:
            return None
        native.leave()
        return native

    def beat(self) -> None:
        """Say that the application works, for `stale_after`. Costs no round trip.

        Raises:
            LeaseForked: It is the parent's.
        """
        native = self._native
        if native is None:
            return
        if not native.is_ours:
            raise LeaseForked("(heartbeat)", self._pid, os.getpid())
        native.touch()

    def stats(self) -> Beats:
        """Say what it has done, so far; zeros before it was started."""
        native = self._native
        if native is None or not native.is_ours:
            return Beats(0, 0, None, is_stale=False)
        return Beats(*native.beats())


class Heartbeat(HeartbeatBase):
    """A heartbeat: start it, or use it in a `with` block.

    Example:
        >>> query = "UPDATE worker SET last_seen = now() WHERE id = $1"
        >>> with Heartbeat(engine, query, [7], every=10):  # doctest: +SKIP
        ...     work()
    """

    def start(self) -> Self:
        """Start it, and wait for its first beat.

        A server that cannot be reached is tried again and again.

        Raises:
            ControlError: The server refuses the statement, or the parameters.
            ArgumentError: It cannot be worked out how to reach the server.
        """
        self.stop()
        with self._starting() as native:
            finish(native.wait)
        return self

    def stop(self) -> None:
        """End it. Does nothing when it does not run, or in a child of a fork."""
        native = self._leave()
        if native is not None:
            finish(native.wait_over, STOP_S)

    def __enter__(self) -> Self:
        """Start it."""
        return self.start()

    def __exit__(self, *_error: object) -> None:
        """End it."""
        self.stop()


def _written(number: int, value: Any) -> str | None:
    """Write a value in PostgreSQL's words."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, _WRITTEN_AS_THEY_ARE):
        return str(value)
    if isinstance(value, _WRITTEN_IN_ISO):
        return value.isoformat()
    raise exc.ArgumentError(
        f"value {number} of the heartbeat is a {type(value).__name__}: pass text, and "
        "cast it in the statement"
    )
