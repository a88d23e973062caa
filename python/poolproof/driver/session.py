"""What cursors and transactions in two phases stand on: one session with a server."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, Protocol

from poolproof import _native
from poolproof.driver.adapters import Adapters
from poolproof.driver.adapters import adapters as shared
from poolproof.driver.errors import Diagnostics, InterfaceError, from_wire
from poolproof.driver.waiting import waiter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["CLOSED", "FAILED", "IDLE", "IN_TRANSACTION", "Piped", "WireSession"]

# What `Wire.status` says.
IDLE, IN_TRANSACTION, FAILED, CLOSED = "I", "T", "E", "X"


class Piped(Protocol):
    """What a session knows of the pipeline in whose block it is."""

    def sync(self) -> None:
        """Send what waits, and raise what has failed of it."""

    def send(self) -> None:
        """Send what waits."""


class WireSession:
    """A session: one request at a time, whichever thread asks.

    Attributes:
        wire: The bridge's connection.
        lock: Held during each request.
        begin: What begins a transaction; None while autocommit is on.
        wait: What waits in place of the bridge; None where it waits by itself.
        is_ended: Whether it was closed.
        pipelined: The pipeline in whose block it is.
    """

    def __init__(self, wire: _native.Wire, adapters: Adapters | None = None) -> None:
        """Take over a connection that was made.

        Args:
            wire: The bridge's connection.
            adapters: The ways in which values travel; None for those of all.
        """
        self.wire = wire
        self.lock = threading.RLock()
        self.begin: _native.Statement | None = None
        self.wait = waiter()
        self._adapters = shared if adapters is None else adapters
        self._owns_adapters = False
        self._notice_handlers: list[Callable[[Diagnostics], object]] = []
        self.is_ended = False
        self.pipelined: Piped | None = None

    def cursor(self, name: str | None = None) -> Any:
        """Make a cursor; see `Connection.cursor`.

        Args:
            name: Of a server's cursor.
        """
        raise NotImplementedError

    # --- what travels ---------------------------------------------------------------

    @property
    def adapters(self) -> Adapters:
        """The ways in which this session's values travel."""
        return self._adapters

    def own_adapters(self) -> Adapters:
        """Return ways that are this session's alone, to be changed."""
        if not self._owns_adapters:
            self._adapters = Adapters(self._adapters)
            self._owns_adapters = True
        return self._adapters

    # --- requests -------------------------------------------------------------------

    def run(
        self,
        text: _native.Statement | str,
        values: Sequence[Any] | None,
        *,
        begin: bool = True,
    ) -> _native.Answer:
        """Run a statement of the user's.

        Args:
            text: The statement, in the server's form; a str is asked once.
            values: Its parameters; None for a text that may hold several statements.
            begin: Whether a transaction begins with it.

        Raises:
            Error: Whatever goes wrong.
        """
        if self.pipelined is not None:
            self.pipelined.sync()
        ways = self._adapters
        lock = self.lock
        # By position, here and below: to find names costs as much as such a call does.
        if not lock.acquire(False):
            # A thread of the parent may have had it: nobody gives it back here.
            self.refuse_child()
            lock.acquire()
        try:
            try:
                return self.wire.execute(
                    text,
                    values,
                    self.begin if begin else None,
                    ways.adapt,
                    ways.loaders,
                    self.wait,
                )
            except _native.WireError as error:
                raise from_wire(error) from None
            finally:
                if self._notice_handlers:
                    self.tell_notices()
        finally:
            lock.release()

    def run_many(self, text: _native.Statement | str, rows: Any) -> _native.Answer:
        """Run a statement of the user's many times, as one pipeline.

        Args:
            text: The statement, in the server's form.
            rows: The parameters of each time.

        Raises:
            Error: Whatever goes wrong.
        """
        if self.pipelined is not None:
            self.pipelined.sync()
        ways = self._adapters
        self.refuse_child()
        with self.lock:
            try:
                return self.wire.execute_many(
                    text,
                    rows,
                    begin=self.begin,
                    adapt=ways.adapt,
                    loaders=ways.loaders,
                    wait=self.wait,
                )
            except _native.WireError as error:
                raise from_wire(error) from None
            finally:
                if self._notice_handlers:
                    self.tell_notices()

    def run_each(
        self, statements: list[tuple[_native.Statement | str, Sequence[Any] | None]]
    ) -> list[Any]:
        """Run statements of the user's as one request.

        Args:
            statements: Each in the server's form, with its parameters.

        Returns:
            An answer, or an exception, for each that was run; those behind the first
            error of the server's were not.

        Raises:
            Error: The connection is of no use.
        """
        ways = self._adapters
        self.refuse_closed()
        self.refuse_child()
        with self.lock:
            try:
                return self.wire.execute_each(
                    statements,
                    begin=self.begin,
                    adapt=ways.adapt,
                    loaders=ways.loaders,
                    wait=self.wait,
                )
            except _native.WireError as error:
                raise from_wire(error) from None
            finally:
                self.tell_notices()

    def begin_copy(self, statement: str) -> _native.WireCopy:
        """Begin a COPY of the user's.

        Args:
            statement: The statement.

        Raises:
            Error: Whatever goes wrong.
        """
        if self.pipelined is not None:
            self.pipelined.sync()
        self.refuse_child()
        with self.lock:
            try:
                return _native.WireCopy(
                    self.wire, statement, begin=self.begin, wait=self.wait
                )
            except _native.WireError as error:
                raise from_wire(error) from None
            finally:
                self.tell_notices()

    def request(
        self, sql: _native.Statement | str, *, tag: str | None = None
    ) -> _native.Answer:
        """Run a statement of the driver's own, which begins no transaction.

        Args:
            sql: The statement, in the server's form.
            tag: What the server must answer it with.

        Raises:
            Error: Whatever goes wrong.
        """
        self.refuse_closed()
        if self.pipelined is not None:
            self.pipelined.sync()
        self.refuse_child()
        with self.lock:
            try:
                return self.wire.execute(sql, tag=tag, wait=self.wait)
            except _native.WireError as error:
                raise from_wire(error) from None
            finally:
                self.tell_notices()

    def do(self, verb: Callable[..., None]) -> None:
        """Call the bridge for something that has no result.

        Args:
            verb: `commit`, `rollback` or `ping` of `wire`.

        Raises:
            Error: Whatever goes wrong.
        """
        self.refuse_closed()
        self.refuse_child()
        with self.lock:
            try:
                verb(self.wait)
            except _native.WireError as error:
                raise from_wire(error) from None
            finally:
                self.tell_notices()

    # --- what the server says unasked -----------------------------------------------

    def add_notice_handler(self, handler: Callable[[Diagnostics], object]) -> None:
        """Have a function called for each notice of the server, after its statement.

        Args:
            handler: Is given what the server says. What it raises is lost.
        """
        self._notice_handlers.append(handler)

    def remove_notice_handler(self, handler: Callable[[Diagnostics], object]) -> None:
        """Have a function called no more.

        Args:
            handler: What was added.
        """
        self._notice_handlers.remove(handler)

    def tell_notices(self) -> None:
        """Call the handlers for the notices that have come."""
        if self._notice_handlers:
            for fields in self.wire.notices():
                for handler in tuple(self._notice_handlers):
                    with contextlib.suppress(Exception):
                        handler(Diagnostics(fields))

    # --- its end --------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether it was closed, or is lost."""
        return self.wire.closed

    @property
    def broken(self) -> bool:
        """Whether it is lost without having been closed."""
        return self.wire.closed and not self.is_ended

    def fileno(self) -> int:
        """Return the socket's descriptor.

        Raises:
            InterfaceError: It is closed.
        """
        number = self.wire.fileno()
        if number < 0:
            self.refuse_closed()
            raise InterfaceError("the connection is lost and has no socket any more")
        return number

    def close(self) -> None:
        """Close it, at once; what was not committed is rolled back by the server."""
        self.is_ended = True
        self.wire.close()

    def refuse_closed(self) -> None:
        """Refuse what needs a connection that was not closed.

        Raises:
            InterfaceError: `close` was called.
        """
        if self.is_ended:
            raise InterfaceError(
                "the connection was closed: open another with "
                "poolproof.driver.connect(), or check one out of the pool"
            )

    def refuse_child(self) -> None:
        """Refuse what a child of a fork asks of its parent's connection.

        Before the lock is waited for, which a thread of the parent may have had: nobody
        gives it back here.

        Raises:
            InterfaceError: This is a child.
        """
        if not self.wire.is_ours:
            raise InterfaceError(
                "this connection belongs to the process that this one was forked from, "
                "and a child cannot use it; nothing was sent. Open another here"
            )
