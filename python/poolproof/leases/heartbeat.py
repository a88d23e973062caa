"""A statement that the control plane runs again and again: this process is alive.

It needs neither the application's pool nor the interpreter, so a busy process does not
look dead. For the same reason it would go on for a process that is stuck: with
`stale_after` it beats only while the application says that it works.
"""

from __future__ import annotations

import datetime as dt
import decimal
import os
import time
import uuid
from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import exc

from poolproof import _checks, _native
from poolproof.control import notifier
from poolproof.control.server import check_bind, finish, readying, refused, server_of
from poolproof.errors import LeaseForked
from poolproof.leases.blocks import PlainBlock
from poolproof.leases.checks import check_control_dsn, check_text
from poolproof.leases.log import BeatLog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

    from poolproof.drivers.server_params import ControlDsn

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
        control_dsn: ControlDsn | None = None,
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
        check_text("a heartbeat's statement", statement)
        if not statement.strip():
            raise exc.ArgumentError("a heartbeat needs a statement")
        given: Any = values
        if not isinstance(given, Sequence) or isinstance(given, (str, bytes)):
            raise exc.ArgumentError(
                f"a heartbeat's values must be a list or a tuple, not "
                f"{_checks.a_kind(values)}"
            )
        check_control_dsn(control_dsn)
        check_bind(bind)
        for name, value, none in (
            ("every", every, False),
            ("stale_after", stale_after, True),
        ):
            meaning = f"seconds, {_LEAST_S:g} to {_MOST_S:g}" + none * ", or None"
            _checks.seconds(
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
        self._was_started = False
        self._was_late = False
        self._ended = Beats(0, 0, None, is_stale=False)
        self._log = BeatLog()
        self._pid = os.getpid()

    # An unknown argument is reported by this name.
    __init__.__qualname__ = "Heartbeat.__init__"

    def __repr__(self) -> str:
        """Show what it does."""
        return f"<{type(self).__name__} {self._state()}>"

    def _state(self) -> str:
        native = self._native
        if native is None:
            return "stopped" if self._was_started else "new"
        if not native.is_ours:
            return f"of process {self._pid}"
        beats = self._done(native)
        if beats.is_stale:
            return "stale"
        return "beating" if beats.last_error is None else "failing"

    def _readying(self) -> Iterator[float]:
        """Start the control plane. Yields how long to rest while it cannot be."""
        self._log = BeatLog()
        self._was_late = False
        for pause, why in readying(None):
            self._was_late = True
            self._ended = Beats(0, 1, str(why), is_stale=False)
            self._log.look(1, str(why))
            yield pause

    def _done(self, native: _native.Heartbeat) -> Beats:
        """Say what it has done; the wait for a thread was one attempt that failed."""
        did = native.beats()
        failures = did.failures + self._was_late
        return Beats(did.beats, failures, did.last_error, did.is_stale)

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
            self._was_started = True
            notifier.watch(native.number, self)
            # What happened before there was a watch was told to nobody.
            _native.wake_events(native.number)
        except BaseException as error:
            if self._native is native:  # nobody has started it anew since
                self._native = None
            native.leave()
            if isinstance(error, _native.Refused):
                raise refused(error) from None
            raise

    @contextmanager
    def _ending(self) -> Iterator[_native.Heartbeat | None]:
        """End it; the block waits. None when it does not run in this process."""
        native, self._native = self._native, None
        if native is None or not native.is_ours:
            yield None
            return
        native.leave()
        notifier.unwatch(native.number)
        try:
            yield native
        finally:
            self._ended = self._done(native)

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
        """Say what it has done so far, or until it was stopped.

        Zeros before it was started; in a child of a fork, what was known before.
        """
        native = self._native
        if native is None or not native.is_ours:
            return self._ended
        return self._done(native)

    def tell(self) -> None:
        """Say in the log that it fails, or beats again. For the notifier."""
        native = self._native
        if native is not None:
            done = self._done(native)
            self._log.look(done.failures, done.last_error)


class Heartbeat(PlainBlock, HeartbeatBase):
    """A heartbeat: start it, or use it in a `with` block.

    Example:
        >>> query = "UPDATE worker SET last_seen = now() WHERE id = $1"
        >>> with Heartbeat(engine, query, [7], every=10):  # doctest: +SKIP
        ...     work()
    """

    def start(self) -> Self:
        """Start it, and wait for its first beat.

        A server that cannot be reached is tried again and again. While the system has
        no thread to give, this waits for one, and the log says so.

        Raises:
            ControlError: The server refuses the statement, or the parameters.
            ArgumentError: It cannot be worked out how to reach the server.
        """
        self.stop()
        for pause in self._readying():
            time.sleep(pause)
        with self._starting() as native:
            finish(native.wait)
        return self

    def stop(self) -> None:
        """End it. Does nothing when it does not run, or in a child of a fork."""
        with self._ending() as native:
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
    if isinstance(value, str):
        check_text(f"value {number} of the heartbeat", value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, _WRITTEN_AS_THEY_ARE):
        return str(value)
    if isinstance(value, _WRITTEN_IN_ISO):
        return value.isoformat()
    raise exc.ArgumentError(
        f"value {number} of the heartbeat is {_checks.a_kind(value)}: pass text, "
        "and cast it in the statement"
    )
