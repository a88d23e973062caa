"""A connection that only reads, made as the engine makes its own, and bounded in time.

It goes through the function that connects for the engine's pool (listeners of
`do_connect` and a creator of the application's are asked), and past the pool: nothing
of the pool's numbers changes. Every question stands in a transaction that the server
has been told is read-only. No setting of the session is changed, for behind a pooler
the session is another client's a moment later.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from poolproof._sqlalchemy import creator_of
from poolproof.doctor.errors import NoConnectionError
from poolproof.doctor.time_limit import TooLateError, within
from poolproof.drivers import known
from poolproof.fork import sockets

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

__all__ = ["ReadOnlyConnection"]

T = TypeVar("T")

_CLOSE_S: Final = 0.5


class ReadOnlyConnection:
    """One session of an engine's server that changes nothing there.

    Args:
        engine: The engine, sync or the sync side of an async one.
        connect: What opens a DBAPI connection; None takes the engine's own function.
        commits_itself: Whether each statement stands alone, as a pooler's console
            wants it.
        patience: How many times as long as it is told it waits, for a slow way or a
            busy machine.
    """

    def __init__(
        self,
        engine: Engine,
        connect: Callable[[], Any] | None = None,
        *,
        commits_itself: bool = False,
        patience: float = 1.0,
    ) -> None:
        self.engine = engine
        self.opened_in_s = 0.0
        self._patience = patience
        self.without_transactions = commits_itself
        self._connect: Callable[[], Any] = connect or creator_of(engine.pool)
        self._connection: Any = None
        # One loop for all that is asked: an asyncio connection belongs to it.
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, seconds: float) -> None:
        """Connect.

        Args:
            seconds: How long it may take.

        Raises:
            NoConnectionError: It took longer.
            Exception: Whatever the driver raises.
        """
        began = time.monotonic()
        given_up = threading.Event()

        def connect() -> Any:
            connection = self._do(self._connect)
            if given_up.is_set():  # nobody waits for it any more
                self._do(connection.close)
            return connection

        try:
            self._connection = within(
                seconds * self._patience, connect, late=given_up.set
            )
        except TooLateError:
            raise NoConnectionError(
                f"the server has not answered within {seconds * self._patience:.2g} s"
            ) from None
        self.opened_in_s = time.monotonic() - began
        self._watch()
        if self.without_transactions:
            self._connection.autocommit = True

    @property
    def is_open(self) -> bool:
        """Whether it can be asked something."""
        return self._connection is not None

    @property
    def driver_connection(self) -> Any:
        """The driver's own connection."""
        return self.engine.dialect.get_driver_connection(self._connection)

    def told_pid(self) -> int | None:
        """Return which backend the driver was told that it talks to."""
        own = self.driver_connection
        return known.of(own, self.engine.dialect).told_pid(own)

    def reported(self, name: str) -> str | None:
        """Return a parameter that the server, or a pooler, has reported by itself.

        Args:
            name: Its name.
        """
        own = self.driver_connection
        return known.of(own, self.engine.dialect).setting(own, name)

    def ends(self) -> tuple[tuple[str, int], tuple[str, int]] | None:
        """Return our address and the other end's; None of a unix socket."""
        number = sockets.descriptor(self.driver_connection)
        if number is None:
            return None
        with socket.socket(fileno=os.dup(number)) as ours:
            if ours.family not in (socket.AF_INET, socket.AF_INET6):
                return None
            return ours.getsockname()[:2], ours.getpeername()[:2]

    def peer(self) -> tuple[str, int] | None:
        """Return the other end's address; None of a unix socket."""
        ends = self.ends()
        return None if ends is None else ends[1]

    def rows(self, question: str, seconds: float = 1.0) -> list[tuple[Any, ...]]:
        """Ask something in a read-only transaction of its own.

        Args:
            question: One statement without parameters.
            seconds: How long it may take.

        Returns:
            The rows of the answer.

        Raises:
            TooLateError: It took longer; the connection is of no use then.
            Exception: Whatever the driver raises.
        """
        return self._bounded(seconds, lambda: self._ask(question, seconds))

    def table(self, question: str, seconds: float = 1.0) -> list[dict[str, str]]:
        """Ask something whose columns are not known beforehand.

        Args:
            question: One statement without parameters, outside of a transaction.
            seconds: How long it may take.

        Returns:
            For each row its values by the columns' names, as text.
        """

        def ask() -> list[dict[str, str]]:
            cursor = self._connection.cursor()
            try:
                cursor.execute(question)
                heads = [column[0] for column in cursor.description]
                return [
                    {
                        str(head): "" if value is None else str(value)
                        for head, value in zip(heads, row, strict=True)
                    }
                    for row in cursor.fetchall()
                ]
            finally:
                cursor.close()

        return self._bounded(seconds, ask)

    def begin(self, question: str, seconds: float = 1.0) -> list[tuple[Any, ...]]:
        """Ask something, and leave the transaction open until `end`.

        Args:
            question: One statement without parameters.
            seconds: How long it may take.
        """
        return self._bounded(seconds, lambda: self._execute(question, seconds))

    def end(self, seconds: float = 1.0) -> None:
        """Roll the open transaction back.

        Args:
            seconds: How long it may take.
        """
        self._bounded(seconds, self._connection.rollback)

    def ping(self, count: int, seconds: float) -> list[float]:
        """Measure answers to the smallest question, in one read-only transaction.

        Args:
            count: How many at most.
            seconds: How long at most.

        Returns:
            The length of each, in seconds, at least one.
        """

        def ask() -> list[float]:
            self._execute("select 1", seconds)
            until = time.monotonic() + seconds * self._patience * 0.8
            lengths: list[float] = []
            cursor = self._connection.cursor()
            while len(lengths) < count:
                began = time.perf_counter()
                cursor.execute("select 1")
                cursor.fetchall()
                lengths.append(time.perf_counter() - began)
                if time.monotonic() > until:
                    break
            cursor.close()
            self._connection.rollback()
            return lengths

        return self._bounded(seconds, ask)

    def close(self) -> None:
        """Close it; one that does not let itself be closed is cut."""
        connection, self._connection = self._connection, None
        if connection is not None:
            own = self.engine.dialect.get_driver_connection(connection)
            with contextlib.suppress(Exception):
                within(
                    _CLOSE_S * self._patience,
                    lambda: self._do(connection.close),
                    late=partial(sockets.end_session, own),
                )
            sockets.unwatch(own)
        if self._loop is not None and not self._loop.is_running():
            self._loop.close()
            self._loop = None

    def _watch(self) -> None:
        """Have a fork sever it, and a question without an answer be cut."""
        own = self.driver_connection
        driver = known.of(own, self.engine.dialect)
        sockets.watch(own, driver, keep_alive=None, tcp_user_timeout=None)
        # A prepared statement would stay in a pooler's session.
        driver.prepare_nothing(own)

    def _bounded(self, seconds: float, function: Callable[[], T]) -> T:
        if self._connection is None:
            raise TooLateError("the connection was given up before")
        try:
            return within(
                seconds * self._patience, lambda: self._do(function), late=self._cut
            )
        except TooLateError:
            self._connection = None
            raise

    def _cut(self) -> None:
        sockets.end_session(self.driver_connection)

    def _do(self, function: Callable[[], T]) -> T:
        """Call the driver: as it is, or from a loop where it works on one."""
        if not self.engine.dialect.is_async:
            return function()
        from sqlalchemy.util import greenlet_spawn  # noqa: PLC0415 - needs greenlet

        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        done: T = self._loop.run_until_complete(greenlet_spawn(function))
        return done

    def _ask(self, question: str, seconds: float) -> list[tuple[Any, ...]]:
        rows = self._execute(question, seconds)
        if not self.without_transactions:
            self._connection.rollback()
        return rows

    def _execute(self, question: str, seconds: float) -> list[tuple[Any, ...]]:
        if self.without_transactions:
            return self._fetch(question)
        try:
            self._run("set transaction read only")
        except Exception:  # noqa: BLE001 - of a driver, of any class
            # PgBouncer with pool_mode = statement hangs up at a transaction. What is
            # asked is a SELECT, and changes nothing by itself.
            self._connect_without_transactions()
            return self._fetch(question)
        self._run(f"set local statement_timeout = {self._milliseconds(seconds)}")
        return self._fetch(question)

    def _milliseconds(self, seconds: float) -> int:
        return max(1, int(seconds * self._patience * 1000))

    def _connect_without_transactions(self) -> None:
        """Connect anew, to ask each question by itself."""
        first, own = self._connection, self.driver_connection
        connection = self._connect()
        connection.autocommit = True
        self._connection, self.without_transactions = connection, True
        sockets.end_session(own)
        with contextlib.suppress(Exception):  # its end is cut off already
            first.close()
        sockets.unwatch(own)
        self._watch()

    def _run(self, statement: str) -> None:
        cursor = self._connection.cursor()
        cursor.execute(statement)
        cursor.close()

    def _fetch(self, question: str) -> list[tuple[Any, ...]]:
        cursor = self._connection.cursor()
        try:
            cursor.execute(question)
            return [tuple(row) for row in cursor.fetchall()]
        finally:
            cursor.close()
