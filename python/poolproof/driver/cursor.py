"""PEP 249's Cursor: all rows of a result come at once.

Long, because it is one idea: what PEP 249 and its users ask of a cursor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn

from poolproof.driver.copy import Copy, from_file, to_file
from poolproof.driver.description import Described
from poolproof.driver.errors import (
    InterfaceError,
    NotSupportedError,
    ProgrammingError,
)
from poolproof.driver.placeholders import arranged, parsed, text_of, whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from poolproof import _native
    from poolproof.driver.placeholders import Parameters
    from poolproof.driver.session import WireSession

__all__ = ["Cursor"]

_NAME = re.compile(
    r'(?:[^\W\d][\w$]*|"(?:[^"]|"")+")(?:\.(?:[^\W\d][\w$]*|"(?:[^"]|"")+")){0,2}'
)


class Cursor:
    """Runs statements and keeps their rows.

    Attributes:
        arraysize: How many rows `fetchmany` returns unless told otherwise.
        itersize: How many rows the cursor of a server fetches at once; an ordinary one
            has them all.
        lastrowid: Always None: PostgreSQL has none; use ``RETURNING``.
        name: Of the server's cursor; None for an ordinary one.
    """

    arraysize = 1
    itersize = 2000
    lastrowid: None = None
    name: str | None = None

    def __init__(self, connection: WireSession) -> None:
        """Make a cursor of a connection.

        Args:
            connection: Its connection.
        """
        self._connection = connection
        self._is_closed = False
        self._answer: _native.Answer | None = None
        self._columns: _native.Columns | None = None
        self._rows: list[tuple[Any, ...]] | None = None
        self._next = 0
        self._count = -1
        # Of a COPY.
        self._tag: str | None = None

    @property
    def connection(self) -> WireSession:
        """Its connection."""
        return self._connection

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._is_closed

    @property
    def description(self) -> list[Described] | None:
        """The columns of the result; None where the statement has none."""
        if self._columns is None:
            return None
        return [*self._columns.described(_described)]

    @property
    def rowcount(self) -> int:
        """How many rows the statement returned or changed; -1 where it has none."""
        return self._count if self._answer is None else self._answer.count

    @property
    def rownumber(self) -> int | None:
        """The number of the next row, from 0; None without a result."""
        return None if self._rows is None else self._next

    @property
    def statusmessage(self) -> str | None:
        """What the server answered, such as ``INSERT 0 1``; None for nothing."""
        return self._tag if self._answer is None else self._answer.tag or None

    # --- statements -----------------------------------------------------------------

    def execute(self, statement: str, parameters: Parameters | None = None) -> Self:
        """Run a statement.

        Args:
            statement: With ``%s`` or ``%(name)s`` for each value. Without parameters a
                percent sign is itself, and several statements may stand in one text,
                of which the last one's result is kept.
            parameters: A sequence for ``%s``, a mapping for ``%(name)s``.

        Returns:
            The cursor itself.

        Raises:
            ProgrammingError: The statement or its parameters are wrong.
            DataError: A value cannot be sent, or cannot be read.
            Error: Whatever the server says, or happens to the connection.
        """
        connection = self._ready()
        given: object = statement
        if not isinstance(given, str):
            statement = text_of(statement)
        if parameters is None:
            answer = connection.run(whole(statement), None)
        else:
            split = parsed(statement)
            # Without values it is asked in the protocol that takes several statements.
            answer = connection.run(split.asked, arranged(split, parameters) or None)
        self._answer = answer
        self._columns = answer.columns
        self._rows = answer.rows
        return self

    def executemany(
        self, statement: str, seq_of_parameters: Iterable[Parameters]
    ) -> None:
        """Run a statement for each of many parameters, as one pipeline.

        One fails, none is done, with autocommit too. Rows that it returns are lost.

        Args:
            statement: With ``%s`` or ``%(name)s`` for each value.
            seq_of_parameters: What `execute` takes, each. They may be more than the
                memory holds.

        Raises:
            Error: As `execute` does.
        """
        connection = self._ready()
        split = parsed(text_of(statement))
        given: object = seq_of_parameters
        if isinstance(given, str | bytes) or not isinstance(given, Iterable):
            raise ProgrammingError(
                "executemany takes one sequence or mapping of parameters for each "
                f"time, such as a list of tuples, not {type(given).__name__}"
            )
        if isinstance(seq_of_parameters, (list, tuple)) and not seq_of_parameters:
            self._count = 0
            return
        rows = (arranged(split, parameters) for parameters in seq_of_parameters)
        self._answer = connection.run_many(split.asked, rows)

    def callproc(self, name: str, parameters: Sequence[Any] = ()) -> Sequence[Any]:
        """Call a function; its rows are the result.

        A procedure is called with ``execute("CALL ...")``.

        Args:
            name: The function's name, with its schema where it needs one.
            parameters: Its arguments, in order.

        Returns:
            The parameters as they were given.

        Raises:
            ProgrammingError: *name* is no name.
        """
        given: object = name
        if not isinstance(given, str) or not _NAME.fullmatch(name):
            raise ProgrammingError(
                f"callproc takes the name of a function, such as 'lower', not {name!r}"
            )
        marks = ", ".join(["%s"] * len(parameters))
        call = f"select * from {name}({marks})"  # noqa: S608 - it is a name
        self.execute(call, list(parameters))
        return parameters

    # --- rows -----------------------------------------------------------------------

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row, or None at the end.

        Raises:
            ProgrammingError: No statement has produced rows.
            InterfaceError: The cursor is closed.
        """
        rows = self._rows
        if rows is None:
            self._refuse_without_rows()
        if self._next >= len(rows):
            return None
        row = rows[self._next]
        self._next += 1
        return row

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """Return the next rows.

        Args:
            size: How many at most; None means `arraysize`.

        Returns:
            A list of them, empty at the end.

        Raises:
            ProgrammingError: No statement has produced rows.
            InterfaceError: The cursor is closed.
        """
        rows = self._rows
        if rows is None:
            self._refuse_without_rows()
        begin = self._next
        self._next = min(
            begin + max(0, self.arraysize if size is None else size), len(rows)
        )
        return rows[begin : self._next]

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the rows that are left.

        Raises:
            ProgrammingError: No statement has produced rows.
            InterfaceError: The cursor is closed.
        """
        rows = self._rows
        if rows is None:
            self._refuse_without_rows()
        begin = self._next
        self._next = len(rows)
        return rows[begin:]

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        while (row := self.fetchone()) is not None:
            yield row

    def __next__(self) -> tuple[Any, ...]:
        row = self.fetchone()
        if row is None:
            raise StopIteration
        return row

    def next(self) -> tuple[Any, ...]:
        """Return the next row; PEP 249's optional extension.

        Raises:
            StopIteration: There is none.
        """
        return self.__next__()

    def scroll(self, value: int, mode: str = "relative") -> None:
        """Move to another row.

        Args:
            value: By how many rows, or to which.
            mode: ``relative`` or ``absolute``.

        Raises:
            IndexError: There is no such row; the cursor stays where it was.
            ProgrammingError: There is no result, or no such mode.
        """
        rows = self._rows
        if rows is None:
            self._refuse_without_rows()
        given: object = value
        if not isinstance(given, int):
            raise ProgrammingError(f"scroll takes a number of rows, not {value!r}")
        to = value + (self._next if _mode(mode) == "relative" else 0)
        if not 0 <= to < max(1, len(rows)):
            raise IndexError(
                f"the result has {len(rows)} rows, and none has the number {to}"
            )
        self._next = to

    def nextset(self) -> None:
        """Return None: of several statements the last one's result is kept."""
        self._ready_to_fetch()

    # --- the rest of PEP 249 --------------------------------------------------------

    def setinputsizes(self, sizes: Sequence[Any]) -> None:
        """Do nothing: the sizes are known."""

    def setoutputsize(self, size: int, column: int | None = None) -> None:
        """Do nothing: the sizes are known."""

    def copy(self, statement: str, parameters: Parameters | None = None) -> Copy:
        """Make a COPY: ``with cursor.copy("COPY t FROM STDIN") as copy``.

        Args:
            statement: ``COPY … FROM STDIN`` or ``COPY … TO STDOUT``; it begins with the
                block.
            parameters: None: the server takes none in a COPY.

        Raises:
            ProgrammingError: There are parameters.
            InterfaceError: The cursor, or its connection, is closed.
        """
        if parameters is not None:
            raise ProgrammingError(
                "the server takes no parameters in a COPY: write the values into its "
                "query with care, or put what is to be copied into a temporary table"
            )
        self._ready()
        return Copy(self, text_of(statement))

    def copy_expert(self, statement: str, file: Any, size: int = 65536) -> None:
        """Copy from a file, or into one; as psycopg2 has it.

        Args:
            statement: ``COPY … FROM STDIN`` or ``COPY … TO STDOUT``.
            file: Open for bytes or for text.
            size: How much of it is read at once.

        Raises:
            Error: As `copy`, and what the file raises.
        """
        with self.copy(statement) as copy:
            if copy.is_to_server:
                from_file(copy, file, size)
            else:
                to_file(copy, file)

    def copy_from(self, *_args: Any, **_keywords: Any) -> NoReturn:
        """Refuse: psycopg2's `copy_from` and `copy_to` are not here.

        Raises:
            NotSupportedError: Always.
        """
        raise NotSupportedError(
            "poolproof.driver has no copy_from() and copy_to(): use cursor.copy(), or "
            "copy_expert(), with the COPY statement written out"
        )

    copy_to = copy_from

    def begin_copy(self, statement: str) -> _native.WireCopy:
        """Begin a COPY; `Copy` does it.

        Args:
            statement: Its statement.
        """
        return self._ready().begin_copy(statement)

    def take_copied(self, told: tuple[str, int]) -> None:
        """Have `statusmessage` and `rowcount` say what a COPY came to.

        Args:
            told: Tag and number of rows.
        """
        self._tag, self._count = told

    def stream(
        self,
        statement: str,
        parameters: Parameters | None = None,
        *,
        size: int | None = None,
    ) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a statement without having all of them in memory.

        It runs as a cursor of the server's, and so inside of a transaction.

        Args:
            statement: A query.
            parameters: As `execute` takes them.
            size: How many rows are fetched at once; None means `itersize`.
        """
        name = f"poolproof_stream_{id(self):x}"
        with self._ready().cursor(name) as rows:
            rows.itersize = self.itersize if size is None else size
            rows.execute(statement, parameters)
            self._columns = rows.columns
            yield from rows

    @property
    def columns(self) -> _native.Columns | None:
        """The columns of the result as the server has described them."""
        return self._columns

    def close(self) -> None:
        """Close it; its rows are gone."""
        self._is_closed = True
        self._rows = None
        self._columns = None

    def _ready(self) -> WireSession:
        """Forget the last result, for the next statement.

        Raises:
            InterfaceError: The cursor, or its connection, is closed.
        """
        connection = self._connection
        if self._is_closed:
            raise InterfaceError(_CLOSED)
        if connection.is_ended:
            connection.refuse_closed()
        self._answer = self._rows = self._columns = None
        self._next = 0
        self._count = -1
        self._tag = None
        return connection

    def _ready_to_fetch(self) -> None:
        if self._is_closed:
            raise InterfaceError(_CLOSED)
        self._connection.refuse_closed()

    def _refuse_without_rows(self) -> NoReturn:
        self._ready_to_fetch()
        raise ProgrammingError(
            "there are no rows to fetch: no statement was run by this cursor, or the "
            "last one returns none (description is None then); add RETURNING, or ask "
            "rowcount"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _described(columns: _native.Columns) -> tuple[Described, ...]:
    return tuple(Described.of(columns[number]) for number in range(len(columns)))


_CLOSED = "the cursor was closed: make another with connection.cursor()"


def _mode(mode: str) -> str:
    if mode not in {"relative", "absolute"}:
        raise ProgrammingError(f"mode is 'relative' or 'absolute', not {mode!r}")
    return mode
