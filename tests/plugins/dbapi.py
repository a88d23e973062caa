"""A DBAPI whose every step can be scripted, with and without a socket below it.

Each call is recorded as ``"<step> <connection number>"`` in the order of happening.
A step does what the script says first: raise an exception, or call a function that may
block, count or raise.  No lock is used: a call may come from the garbage collector in
the middle of another one.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Scripted = BaseException | type[BaseException] | Callable[["StubConnection"], None]


class Error(Exception):
    """Root of the stub's errors, as PEP 249 asks."""


class InterfaceError(Error):
    """A fault of the driver."""


class DatabaseError(Error):
    """A fault of the database."""


class OperationalError(DatabaseError):
    """A lost connection, or a server that does not answer."""


class ProgrammingError(DatabaseError):
    """A wrong statement."""


class StubCursor:
    """A cursor that answers every statement with the row ``(1,)``.

    The column has the name that the statement gives it, or ``n``.
    """

    description = (("n", 23, None, None, None, None, None),)
    rowcount = 1
    lastrowid = None
    arraysize = 1

    def __init__(self, connection: StubConnection) -> None:
        self.connection = connection
        self._rows: deque[tuple[int]] = deque()

    def execute(self, statement: str, parameters: object = ()) -> None:
        """Run the script's step ``execute``; answer one row."""
        del parameters
        self.connection.step("execute")
        _, _, name = statement.partition(" as ")
        self.description = ((name or "n", *StubCursor.description[0][1:]),)
        self._rows = deque([(1,)])

    def fetchone(self) -> tuple[int] | None:
        """Return the next row, or None."""
        return self._rows.popleft() if self._rows else None

    def fetchall(self) -> list[tuple[int]]:
        """Return the rows that are left."""
        rows = list(self._rows)
        self._rows.clear()
        return rows

    def close(self) -> None:
        """Forget the rows."""
        self._rows.clear()


class StubConnection:
    """One connection; ``number`` counts from 1."""

    def __init__(self, dbapi: StubDBAPI, number: int) -> None:
        self.dbapi = dbapi
        self.number = number
        self.closed = False
        self.autocommit = False  # psycopg2's, read by its dialect
        self.notices: list[str] = []
        self.transaction_status = 0  # idle, in libpq's numbers

    def get_transaction_status(self) -> int:
        """Return the transaction status, as psycopg2 does: without a round trip."""
        return self.transaction_status

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.number}>"

    def step(self, name: str) -> None:
        """Record one call, then do what the script says for it."""
        self.dbapi.calls.append(f"{name} {self.number}")
        self.dbapi.run(name, self)

    def cursor(self, *_: object, **__: object) -> StubCursor:
        """Return a cursor."""
        self.step("cursor")
        return StubCursor(self)

    def rollback(self) -> None:
        """Roll back."""
        self.step("rollback")

    def commit(self) -> None:
        """Commit."""
        self.step("commit")

    def close(self) -> None:
        """Close; the connection counts as closed also when the script raises."""
        self.closed = True
        self.dbapi.open.pop(self.number, None)
        self.step("close")


class SocketConnection(StubConnection):
    """A stub whose connection is one end of a real socket pair.

    The descriptors are bare numbers, as in a C driver: socket objects would complain
    when the collector finds them in a cycle before it finds us.

    Attributes:
        peer: The descriptor of the server's end.
    """

    _descriptor = peer = -1  # until the pair is there: anything may interrupt us

    def __init__(self, dbapi: StubDBAPI, number: int) -> None:
        super().__init__(dbapi, number)
        ours, peers = socket.socketpair()
        self._descriptor, self.peer = ours.detach(), peers.detach()

    def fileno(self) -> int:
        """Return the descriptor, as psycopg2 and psycopg do; -1 when closed."""
        return self._descriptor

    def close(self) -> None:
        """Close both ends."""
        self._close_descriptors()
        super().close()

    def __del__(self) -> None:
        self._close_descriptors()

    def _close_descriptors(self) -> None:
        ours, self._descriptor = self._descriptor, -1
        peers, self.peer = self.peer, -1
        for descriptor in (ours, peers):
            if descriptor >= 0:
                os.close(descriptor)


class StubDBAPI:
    """The module-like object that an engine takes as ``module=``.

    Attributes:
        calls: Every call so far, in order.
        script: What a step (``connect``, ``cursor``, ``execute``, ``rollback``,
            ``commit``, ``close``) does: an exception to raise or a function to call.
        open: The connections that are open, by number.
        peak: The most that were open at once.
    """

    apilevel = "2.0"
    paramstyle = "pyformat"
    threadsafety = 2
    version_info = (99, 9, 9)
    __version__ = "99.9.9"

    Error = Error
    InterfaceError = InterfaceError
    DatabaseError = DatabaseError
    OperationalError = OperationalError
    ProgrammingError = ProgrammingError

    connection_class: type[StubConnection] = StubConnection

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.script: dict[str, Scripted] = {}
        self.open: dict[int, StubConnection] = {}
        self._sizes: deque[int] = deque([0])
        self._numbers = itertools.count(1)

    def connect(self, *_: object, **__: object) -> Any:
        """Open a connection, as the script allows."""
        number = next(self._numbers)
        self.calls.append(f"connect {number}")
        connection = self.connection_class(self, number)
        self.run("connect", connection)
        self.open[number] = connection
        self._sizes.append(len(self.open))
        return connection

    def run(self, name: str, connection: StubConnection) -> None:
        """Do what the script says for one step."""
        scripted = self.script.get(name)
        if scripted is None:
            return
        if isinstance(scripted, BaseException) or (
            isinstance(scripted, type) and issubclass(scripted, BaseException)
        ):
            raise scripted
        scripted(connection)

    @property
    def peak(self) -> int:
        """The most connections that were open at once."""
        return max(self._sizes)

    @property
    def connects(self) -> int:
        """How many connections were asked for."""
        return self.count("connect")

    def count(self, name: str) -> int:
        """Return how often a step was called."""
        return Counter(call.split()[0] for call in list(self.calls))[name]

    def take_calls(self) -> list[str]:
        """Return the calls since the last take, and forget them."""
        calls, self.calls = self.calls, []
        return calls


class SocketDBAPI(StubDBAPI):
    """A stub whose connections own descriptors."""

    connection_class = SocketConnection
