"""COPY: bytes or rows to the server, or from it, a piece at a time.

Never is the whole in memory. The server is heard while it is written to, so an error in
the middle arrives at one of the next writes, and the connection is in step afterwards.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Protocol

from poolproof import _native
from poolproof.driver.errors import (
    Error,
    InterfaceError,
    ProgrammingError,
    from_wire,
)
from poolproof.driver.oids import BY_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from poolproof.driver.session import WireSession

__all__ = ["Copy", "from_file", "to_file"]

_CANCELLED = "57014"
# What is left of a COPY when its block is left is read to its end, up to so many bytes.
# For more the server is asked to stop.
_READ_ON = 1 << 20


class Copying(Protocol):
    """What a COPY needs of its cursor."""

    @property
    def connection(self) -> WireSession:
        """Whose cursor it is."""

    def begin_copy(self, statement: str) -> _native.WireCopy:
        """Begin one."""

    def take_copied(self, told: tuple[str, int]) -> None:
        """Keep tag and number of rows."""


class Copy:
    """One COPY; `Cursor.copy` makes it, and it is a context manager.

    The statement begins with the block. At its end what was written is kept; after an
    exception nothing is.
    """

    def __init__(self, cursor: Copying, statement: str) -> None:
        """Make it; nothing is sent before its block is entered.

        Args:
            cursor: Whose it is.
            statement: ``COPY … FROM STDIN`` or ``COPY … TO STDOUT``.
        """
        self._cursor = cursor
        self._statement = statement
        self._copy: _native.WireCopy | None = None
        self._types: list[int] | None = None
        self._left = False
        # What has come and was not taken yet, in order of time.
        self._come: Iterator[bytes] = iter(())
        self._rows: Iterator[tuple[Any, ...]] = iter(())

    # --- its block ------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._copy is not None:
            raise ProgrammingError(
                "this COPY was begun before: make another with cursor.copy()"
            )
        self._copy = self._cursor.begin_copy(self._statement)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        copy = self._opened()
        try:
            self._left = True
            if not copy.is_open:
                if kind is None:
                    self._tell()
            elif error is not None and not isinstance(
                error, (Exception, GeneratorExit)
            ):
                # Somebody wants this to end now: the connection is the price.
                self._session.wire.close()
            elif copy.is_in:
                self._end_writing(copy, error)
            else:
                self._end_reading(copy, error)
        except BaseException:
            # As after an interruption of the end itself: there is no other.
            if copy.is_open:
                self._session.wire.close()
            raise

    def _end_writing(self, copy: _native.WireCopy, error: BaseException | None) -> None:
        if error is None:
            told = self._asked(copy.finish)
            self._cursor.take_copied(told)
            return
        # The class alone: a text may quote values, and the server logs it.
        reason = f"error from Python: {type(error).__name__}"
        try:
            self._asked(copy.finish, refusal=reason)
        except Error:
            return  # the connection is lost with it, and the user's own error goes on

    def _end_reading(self, copy: _native.WireCopy, error: BaseException | None) -> None:
        is_cancelled = False
        try:
            if not self._asked(copy.leave, _READ_ON):
                is_cancelled = True
                self._cancel()
                self._asked(copy.leave)
        except Error as late:
            is_asked_for = is_cancelled and late.sqlstate == _CANCELLED
            if error is None and not is_asked_for:
                raise
            return
        if error is None:
            self._tell()

    def _cancel(self) -> None:
        session = self._session
        try:
            # Returns when the server has passed it on, so it meets no later statement.
            session.wire.cancel(wait=session.wait)
        except _native.WireError as error:
            session.wire.close()
            raise from_wire(error) from None

    def _tell(self) -> None:
        told = self._opened().told
        if told is not None:
            self._cursor.take_copied(told)

    @property
    def is_to_server(self) -> bool:
        """Whether it is written to, and not read from."""
        return self._opened().is_in

    # --- to the server --------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview | str) -> None:
        """Send a piece of what is copied, in the statement's format.

        The pieces may end anywhere.

        Args:
            data: Bytes; or a text, which travels as UTF-8.

        Raises:
            Error: Whatever the server says, perhaps of an earlier piece.
        """
        self._asked(self._writing().write, data)

    def write_row(self, row: Sequence[Any]) -> None:
        """Send a row, in the text format or the binary one.

        Args:
            row: Its values, as `Cursor.execute` takes them.

        Raises:
            DataError: A value cannot be sent, or the row has too many or too few.
            Error: Whatever the server says, perhaps of an earlier row.
        """
        copy = self._copy
        session = self._cursor.connection
        if copy is None or self._left or session.is_ended:
            self._writing()
            session.refuse_closed()
            return
        if not session.lock.acquire(False):
            # Another thread has it, or in a child one of the parent's: as ever then.
            self.write_rows((row,))
            return
        try:
            copy.write_row(row, self._types, session.adapters.adapt, session.wait)
        except _native.WireError as error:
            raise from_wire(error) from None
        finally:
            session.tell_notices()
            session.lock.release()

    def write_rows(self, rows: Iterable[Sequence[Any]]) -> None:
        """Send many rows. Quicker than one by one.

        Args:
            rows: The rows. They may be more than the memory holds.

        Raises:
            Error: As `write_row`.
        """
        ways = self._session.adapters
        self._asked(
            self._writing().write_rows, rows, types=self._types, adapt=ways.adapt
        )

    def set_types(self, types: Iterable[int | str]) -> None:
        """Say of which types the columns are.

        The binary format needs it for rows. In the text format what is read comes as
        values then, and not as texts.

        Args:
            types: The types' names, such as ``int4``, or their numbers.

        Raises:
            ProgrammingError: There is no such type; of one's own the number is wanted.
        """
        self._types = [_oid(one) for one in types]

    # --- from the server ------------------------------------------------------------

    def read(self) -> bytes:
        """Return the next piece: a row, in the statement's format; empty at the end.

        Raises:
            Error: Whatever the server says.
        """
        return next(self, b"")

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        for piece in self._come:
            return piece
        self._come = iter(self.read_many())
        return next(self._come)

    def read_many(self) -> list[bytes]:
        """Return the pieces that have come; at least one, none at the end.

        Raises:
            Error: Whatever the server says.
        """
        found: list[bytes] | None = list(self._come)
        if not found:
            found = self._asked(self._reading().read)
        return found or []

    def read_row(self) -> tuple[Any, ...] | None:
        """Return the next row, or None at the end.

        Raises:
            Error: Whatever the server says.
        """
        for row in self._rows:
            return row
        self._rows = iter(self.read_rows())
        return next(self._rows, None)

    def read_rows(self) -> list[tuple[Any, ...]]:
        """Return the rows that have come; at least one, none at the end.

        Raises:
            Error: Whatever the server says.
        """
        found: list[tuple[Any, ...]] | None = list(self._rows)
        if not found:
            found = self._asked(
                self._reading().read_rows,
                types=self._types,
                loaders=self._session.adapters.loaders,
            )
        return found or []

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows, of the text format or the binary one.

        Texts, or bytes in the binary format; after `set_types` values.

        Raises:
            Error: Whatever the server says.
        """
        while rows := self.read_rows():
            self._rows = iter(rows)
            yield from self._rows

    # --- the bridge -----------------------------------------------------------------

    @property
    def _session(self) -> WireSession:
        return self._cursor.connection

    def _opened(self) -> _native.WireCopy:
        if self._copy is None:
            raise ProgrammingError(
                "this COPY has not begun: use it inside of its block, "
                "with cursor.copy(statement) as copy"
            )
        return self._copy

    def _writing(self) -> _native.WireCopy:
        self._refuse_left()
        return self._opened()

    def _reading(self) -> _native.WireCopy:
        self._refuse_left()
        return self._opened()

    def _refuse_left(self) -> None:
        if self._left:
            raise InterfaceError(
                "this COPY has come to its end with its block: begin another with "
                "cursor.copy()"
            )

    def _asked(self, verb: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        session = self._session
        session.refuse_child()
        with session.lock:
            session.refuse_closed()
            try:
                return verb(*args, **keywords, wait=session.wait)
            except _native.WireError as error:
                raise from_wire(error) from None
            finally:
                session.tell_notices()

    def __repr__(self) -> str:
        state = "not begun" if self._copy is None else "open"
        return f"<poolproof.driver.Copy {'ended' if self._left else state}>"


def _oid(kind: int | str) -> int:
    if isinstance(kind, int):
        return kind
    name = kind.lower()
    is_array = name.endswith("[]")
    found = BY_NAME.get(_ALIASES.get(name.removesuffix("[]"), name.removesuffix("[]")))
    if found is None:
        raise ProgrammingError(
            f"set_types() knows no type {kind!r}: give a built-in one's name as the "
            "catalogue has it, such as 'int4', or connection.type_info(name).oid"
        )
    return found.array_oid if is_array else found.oid


_ALIASES = {
    "smallint": "int2",
    "int": "int4",
    "integer": "int4",
    "bigint": "int8",
    "real": "float4",
    "double precision": "float8",
    "boolean": "bool",
    "decimal": "numeric",
    "character varying": "varchar",
    "character": "bpchar",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
    "time without time zone": "time",
    "time with time zone": "timetz",
}


def to_file(copy: Copy, file: Any) -> None:
    """Write all that comes into a file.

    Args:
        copy: From the server.
        file: Open for writing, for bytes or for text.
    """
    if isinstance(file, io.TextIOBase):
        for piece in copy:
            # Each is a row, so no character is divided.
            file.write(piece.decode())
    else:
        for piece in copy:
            file.write(piece)


def from_file(copy: Copy, file: Any, size: int) -> None:
    """Send all that is in a file.

    Args:
        copy: To the server.
        file: Open for reading, for bytes or for text.
        size: How much is read at once.
    """
    while piece := file.read(size):
        copy.write(piece)
