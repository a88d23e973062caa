"""A cursor that the server keeps: rows come as they are fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poolproof.driver.cursor import Cursor
from poolproof.driver.errors import Error, InterfaceError, ProgrammingError
from poolproof.driver.placeholders import arranged, parsed, text_of
from poolproof.driver.session import IDLE, IN_TRANSACTION

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from typing_extensions import Self

    from poolproof import _native
    from poolproof.driver.placeholders import Parameters
    from poolproof.driver.session import WireSession

__all__ = ["ServerCursor"]
_NO_SUCH_CURSOR = "34000"


class ServerCursor(Cursor):
    """A cursor with a name. PostgreSQL keeps it until the transaction ends.

    Attributes:
        name: Its name.
        scrollable: Whether it can go backwards; None leaves it to the server.
        withhold: Whether it outlives the transaction.
    """

    name: str

    def __init__(
        self,
        connection: WireSession,
        name: str,
        *,
        scrollable: bool | None = None,
        withhold: bool = False,
    ) -> None:
        """Make a cursor; nothing is sent before `execute`.

        Args:
            connection: Its connection.
            name: Its name.
            scrollable: See the attribute.
            withhold: See the attribute.

        Raises:
            ProgrammingError: The name is empty.
        """
        super().__init__(connection)
        if not name:
            raise ProgrammingError("the name of a server's cursor cannot be empty")
        self.name = name
        self.scrollable = scrollable
        self.withhold = withhold
        self._quoted = '"' + name.replace('"', '""') + '"'
        self._is_declared = False

    def execute(self, statement: str, parameters: Parameters | None = None) -> Self:
        """Have the server begin a query.

        Args:
            statement: A query, with ``%s`` or ``%(name)s`` for each value.
            parameters: A sequence or a mapping.

        Raises:
            Error: As an ordinary cursor's.
        """
        connection = self._ready()
        self._end()
        values: Sequence[Any] = ()
        text = text_of(statement)
        if parameters is not None:
            split = parsed(text)
            text, values = split.text, arranged(split, parameters)
        scroll = {None: "", True: " SCROLL", False: " NO SCROLL"}[self.scrollable]
        hold = " WITH HOLD" if self.withhold else ""
        declare = f"DECLARE {self._quoted}{scroll} CURSOR{hold} FOR {text}"
        connection.run(declare, values)
        self._is_declared = True
        self._columns = self._ask("FETCH FORWARD 0 FROM").columns
        self._count = -1
        self._next = 0
        return self

    def executemany(
        self, statement: str, seq_of_parameters: Iterable[Parameters]
    ) -> None:
        """Refuse: a cursor has one result.

        Raises:
            ProgrammingError: Always.
        """
        del statement, seq_of_parameters
        raise ProgrammingError(
            "a server's cursor cannot run executemany(): use an ordinary one, which "
            "connection.cursor() makes"
        )

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row, or None at the end."""
        rows = self._fetch("FETCH FORWARD 1 FROM")
        return rows[0] if rows else None

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """Return the next rows.

        Args:
            size: How many at most; None means `arraysize`.
        """
        count = max(0, self.arraysize if size is None else size)
        return self._fetch(f"FETCH FORWARD {count} FROM") if count else []

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the rows that are left."""
        return self._fetch("FETCH FORWARD ALL FROM")

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        while rows := self.fetchmany(self.itersize):
            yield from rows

    @property
    def rownumber(self) -> int | None:
        """The number of the next row, from 0; None without a result."""
        return self._next if self._is_declared else None

    def scroll(self, value: int, mode: str = "relative") -> None:
        """Move to another row.

        Args:
            value: By how many rows, or to which.
            mode: ``relative`` or ``absolute``.

        Raises:
            ProgrammingError: There is no result, or no such mode.
            Error: The server refuses, as to go backwards without *scrollable*.
        """
        if mode not in {"relative", "absolute"}:
            raise ProgrammingError(f"mode is 'relative' or 'absolute', not {mode!r}")
        self._ask(f"MOVE {mode.upper()} {int(value)} FROM")
        self._next = value if mode == "absolute" else self._next + value

    def close(self) -> None:
        """Close it, on the server as well, as far as the connection can."""
        if not self._is_closed:
            try:
                self._end()
            finally:
                super().close()

    def _end(self) -> None:
        if not self._is_declared:
            return
        self._is_declared = False
        connection = self._connection
        status = connection.wire.status
        # Elsewhere the end of the transaction has closed it.
        if status == IN_TRANSACTION or (self.withhold and status == IDLE):
            try:
                connection.request(f"CLOSE {self._quoted}")
            except InterfaceError:
                return  # the connection was closed
            except Error as error:
                if error.sqlstate != _NO_SUCH_CURSOR:
                    raise

    def _fetch(self, what: str) -> list[tuple[Any, ...]]:
        rows = self._ask(what).rows or []
        self._next += len(rows)
        return rows

    def _ask(self, what: str) -> _native.Answer:
        self._ready_to_fetch()
        if not self._is_declared:
            self._refuse_without_rows()
        # A cursor that outlives its transaction is read outside of one, too.
        return self._connection.run(f"{what} {self._quoted}", (), begin=False)
