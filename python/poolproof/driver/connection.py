"""PEP 249's Connection."""

from __future__ import annotations

import contextlib
import math
import time
from typing import TYPE_CHECKING

from poolproof import _native
from poolproof.driver import errors
from poolproof.driver.cursor import Cursor
from poolproof.driver.errors import ProgrammingError, from_wire
from poolproof.driver.info import ConnectionInfo
from poolproof.driver.pipeline import Pipeline, PipelineCursor
from poolproof.driver.placeholders import whole
from poolproof.driver.server_cursor import ServerCursor
from poolproof.driver.session import CLOSED, FAILED, IDLE, IN_TRANSACTION
from poolproof.driver.threshold import THRESHOLD, refuse_threshold
from poolproof.driver.two_phase import TwoPhase
from poolproof.driver.type_info import TypeInfo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Self

    from poolproof.driver.adapters import Adapters
    from poolproof.driver.placeholders import Parameters

__all__ = ["ISOLATION_LEVELS", "Connection", "Notify"]

ISOLATION_LEVELS = (
    "READ UNCOMMITTED",
    "READ COMMITTED",
    "REPEATABLE READ",
    "SERIALIZABLE",
)


class Notify:
    """A notification.

    Attributes:
        pid: The process id of the backend that has sent it.
        channel: The channel.
        payload: What was sent; empty for nothing.
    """

    __slots__ = ("channel", "payload", "pid")

    def __init__(self, pid: int, channel: str, payload: str) -> None:
        """Make it; the arguments are the attributes."""
        self.pid = pid
        self.channel = channel
        self.payload = payload

    def __repr__(self) -> str:
        return f"Notify({self.pid}, {self.channel!r}, {self.payload!r})"


class Connection(TwoPhase):
    """A session with a server. Threads may share it: one request at a time.

    As a context manager it commits at the end, rolls back after an exception, and
    closes in both cases.

    Attributes:
        info: What is known of the server.
    """

    # PEP 249's optional extension.
    Warning = errors.Warning
    Error = errors.Error
    InterfaceError = errors.InterfaceError
    DatabaseError = errors.DatabaseError
    DataError = errors.DataError
    OperationalError = errors.OperationalError
    IntegrityError = errors.IntegrityError
    InternalError = errors.InternalError
    ProgrammingError = errors.ProgrammingError
    NotSupportedError = errors.NotSupportedError

    def __init__(
        self,
        wire: _native.Wire,
        *,
        autocommit: bool = False,
        adapters: Adapters | None = None,
        pipeline: bool = False,
        prepare_threshold: int | None = THRESHOLD,
    ) -> None:
        """Take over a connection that was made; `poolproof.driver.connect` makes one.

        Args:
            wire: The bridge's connection.
            autocommit: Whether each statement commits by itself.
            adapters: The ways in which values travel; None for those of all.
            pipeline: Whether `rollback` leaves its answer to the next request.
            prepare_threshold: See the attribute.
        """
        super().__init__(wire, adapters)
        if prepare_threshold != THRESHOLD:
            wire.prepare_threshold = prepare_threshold
        self.info = ConnectionInfo(wire)
        self._autocommit = bool(autocommit)
        self._pipelines = bool(pipeline)
        self._isolation_level: str | None = None
        self._read_only: bool | None = None
        self._deferrable: bool | None = None
        self.begin = self._how_to_begin()

    # --- statements -----------------------------------------------------------------

    def type_info(self, name: str) -> TypeInfo | None:
        """Ask the server for what it knows of a type.

        Leaves no transaction open that was not open before.

        Args:
            name: The type's name, with its schema where it needs one.

        Returns:
            What `poolproof.driver.register_type` takes; None where there is no such
            type.
        """
        was_idle = self.wire.status == IDLE
        try:
            return TypeInfo.fetch(self, name)
        finally:
            if was_idle and self.wire.status in {IN_TRANSACTION, FAILED}:
                self.rollback()

    def cursor(
        self,
        name: str | None = None,
        *,
        scrollable: bool | None = None,
        withhold: bool = False,
    ) -> Cursor:
        """Make a cursor.

        Args:
            name: Of a cursor that the server keeps, whose rows come as they are
                fetched; None for one whose rows all come at once.
            scrollable: Whether the server's can go backwards; None leaves it to the
                server.
            withhold: Whether the server's outlives the transaction.

        Raises:
            InterfaceError: The connection is closed.
        """
        self.refuse_closed()
        if name is None and isinstance(self.pipelined, Pipeline):
            return PipelineCursor(self, self.pipelined)
        if name is not None:
            return ServerCursor(self, name, scrollable=scrollable, withhold=withhold)
        return Cursor(self)

    def pipeline(self) -> Pipeline:
        """Send statements together: ``with connection.pipeline():``.

        In the block the statements of `execute`, and of cursors that are made there,
        wait. They are sent as one request, and each has its own answer, when one of the
        cursors is looked at, by `Pipeline.sync`, at the end of the block, when there
        are a thousand, and ahead of whatever else is asked. After an error nothing is
        run until the next `sync`, and what was not run raises `PipelineAborted`. A
        block in a block belongs to the same pipeline.

        Returns:
            The pipeline.

        Raises:
            InterfaceError: The connection is closed.
        """
        self.refuse_closed()
        found = self.pipelined
        return found if isinstance(found, Pipeline) else Pipeline(self)

    def execute(self, statement: str, parameters: Parameters | None = None) -> Cursor:
        """Run a statement in a new cursor, and return that.

        Args:
            statement: With ``%s`` or ``%(name)s`` for each value.
            parameters: A sequence or a mapping.
        """
        cursor = self.cursor()
        cursor.execute(statement, parameters)
        return cursor

    def commit(self) -> None:
        """Commit; does nothing where no transaction is open.

        Raises:
            InternalError: The server has rolled back instead, because a statement had
                failed.
            OperationalError: `outcome` says what became of the transaction.
        """
        self.refuse_in_two_phases("commit")
        if self.pipelined is not None:
            self.pipelined.sync()
        self.do(self.wire.commit)

    def rollback(self) -> None:
        """Roll back; does nothing where no transaction is open.

        With `pipeline` the answer is not waited for: it is read, and compared, ahead of
        the next one's.

        Raises:
            Error: The connection is closed, or lost.
        """
        self.refuse_in_two_phases("rollback")
        if self.pipelined is not None:
            self.pipelined.send()
        self.do(self.wire.send_rollback if self._pipelines else self.wire.rollback)

    def ping(self) -> None:
        """Ask the server for a sign of life: one round trip, and no statement.

        Raises:
            Error: The connection is closed, or lost.
        """
        if self.pipelined is not None:
            self.pipelined.sync()
        self.do(self.wire.ping)

    def cancel(self) -> None:
        """Ask the server to end the statement that another thread is waiting for.

        Waits until the server has passed this on, at most five seconds. The other
        thread gets an error, 57014, unless its statement was quicker. What is asked
        next on the connection waits as well, so that it is not ended in the place of
        that. Where no statement is under way nothing is done.

        Raises:
            Error: The server could not be asked; or it has not said in time that it has
                passed this on: then it may do so later, and the connection is to be
                closed.
        """
        self.refuse_closed()
        self.refuse_child()
        try:
            self.wire.cancel(wait=self.wait)
        except _native.WireError as error:
            raise from_wire(error) from None

    @property
    def prepare_threshold(self) -> int | None:
        """After how many times a statement is prepared; None for never; 5 at first.

        What has been prepared is given up when it is set to None. Behind a pooler
        nothing is prepared, whatever this says.
        """
        return self.wire.prepare_threshold

    @prepare_threshold.setter
    def prepare_threshold(self, value: int | None) -> None:
        refuse_threshold(value)
        self.wire.prepare_threshold = value

    # --- how transactions begin -----------------------------------------------------

    @property
    def autocommit(self) -> bool:
        """Whether each statement commits by itself; False at first."""
        return self._autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self._refuse_in_transaction("autocommit")
        self._autocommit = bool(value)
        self.begin = self._how_to_begin()

    @property
    def isolation_level(self) -> str | None:
        """How transactions are kept apart; None for the server's default."""
        return self._isolation_level

    @isolation_level.setter
    def isolation_level(self, value: str | None) -> None:
        self._refuse_in_transaction("isolation_level")
        level = None if value is None else str(value).upper().replace("_", " ")
        if level is not None and level not in ISOLATION_LEVELS:
            names = ", ".join(repr(name) for name in ISOLATION_LEVELS)
            raise ProgrammingError(
                f"isolation_level is one of {names}, or None for the server's "
                f"default, not {value!r}"
            )
        self._isolation_level = level
        self.begin = self._how_to_begin()

    @property
    def read_only(self) -> bool | None:
        """Whether transactions are read-only; None for the server's default."""
        return self._read_only

    @read_only.setter
    def read_only(self, value: bool | None) -> None:
        self._refuse_in_transaction("read_only")
        self._read_only = None if value is None else bool(value)
        self.begin = self._how_to_begin()

    @property
    def deferrable(self) -> bool | None:
        """Whether transactions are deferrable; None for the server's default."""
        return self._deferrable

    @deferrable.setter
    def deferrable(self, value: bool | None) -> None:
        self._refuse_in_transaction("deferrable")
        self._deferrable = None if value is None else bool(value)
        self.begin = self._how_to_begin()

    def _how_to_begin(self) -> _native.Statement | None:
        if self._autocommit:
            return None
        words = ["BEGIN"]
        if self._isolation_level is not None:
            words.append(f"ISOLATION LEVEL {self._isolation_level}")
        if self._read_only is not None:
            words.append("READ ONLY" if self._read_only else "READ WRITE")
        if self._deferrable is not None:
            words.append("DEFERRABLE" if self._deferrable else "NOT DEFERRABLE")
        return whole(" ".join(words))

    def _refuse_in_transaction(self, name: str) -> None:
        self.refuse_closed()
        if self.pipelined is not None:
            self.pipelined.sync()
        if self.wire.status not in {IDLE, CLOSED}:
            raise ProgrammingError(
                f"{name} cannot be changed inside of a transaction: commit or roll "
                "back first"
            )

    # --- what the server says unasked -----------------------------------------------

    def notifies(
        self, *, timeout: float | None = None, stop_after: int | None = None
    ) -> Iterator[Notify]:
        """Yield notifications as they come.

        Args:
            timeout: How long to wait for them in all, in seconds; 0 for those that are
                there; None waits without end.
            stop_after: After how many to stop; None does not.

        Raises:
            ProgrammingError: *timeout* is not a number.
            Error: The connection is closed, or lost.
        """
        if timeout is not None and math.isnan(timeout):
            raise ProgrammingError(f"timeout is a number of seconds, not {timeout}")
        until = None if timeout is None else time.monotonic() + timeout
        told = 0
        while True:
            self.refuse_child()
            with self.lock:
                self.refuse_closed()
                left = None if until is None else max(0.0, until - time.monotonic())
                try:
                    self.wire.wait_notification(left, self.wait)
                    come = self.wire.notifications()
                except _native.WireError as error:
                    raise from_wire(error) from None
            for pid, channel, payload in come:
                told += 1
                yield Notify(pid, channel, payload)
            if stop_after is not None and told >= stop_after:
                return
            if not come and until is not None and time.monotonic() >= until:
                return

    # --- its end --------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.is_ended:
            return
        try:
            if kind is None:
                self.commit()
            else:
                with contextlib.suppress(errors.Error):
                    self.rollback()
        finally:
            self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"backend pid {self.wire.pid}"
        return f"<poolproof.driver.Connection {state}>"
