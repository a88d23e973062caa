"""The driver's twin for asyncio: the same sessions, waited for in the task's loop.

    from poolproof.driver import aio

    async with await aio.connect("postgresql://localhost/shop") as connection:
        cursor = await connection.execute("select name from wares")
        async for (name,) in cursor:
            ...

A session is the very one of `poolproof.driver`, run in a greenlet as SQLAlchemy runs
its own code under asyncio; where it would wait for its socket, the task waits for the
loop to say that the socket is ready. No thread, and no copy of the code.

Long, because it is one idea: the methods of connections, cursors, COPYs and pipelines,
awaited.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sqlalchemy.util import await_only, greenlet_spawn

from poolproof.driver import errors
from poolproof.driver.connection import Connection
from poolproof.driver.connector import open_as
from poolproof.driver.pipeline import Pipeline, PipelineCursor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from poolproof import _native
    from poolproof.driver.adapters import Adapters
    from poolproof.driver.connection import Notify
    from poolproof.driver.copy import Copy
    from poolproof.driver.cursor import Cursor
    from poolproof.driver.description import Described
    from poolproof.driver.errors import Diagnostics
    from poolproof.driver.info import ConnectionInfo
    from poolproof.driver.placeholders import Parameters
    from poolproof.driver.type_info import TypeInfo

# A server may take or send faster than this process can: whoever copies lets the other
# tasks have their turn after so many bytes, or rows, or after what has come.
_AT_ONCE = 1 << 20
_ROWS = 500

Fetched = TypeVar("Fetched")

__all__ = [
    "AsyncConnection",
    "AsyncCopy",
    "AsyncCursor",
    "AsyncPipeline",
    "connect",
    "wait_in_loop",
]


def wait_in_loop(descriptor: int, for_writing: bool, timeout_s: float | None) -> bool:
    """Wait for a socket in the running loop; the bridge calls it, in a greenlet.

    Nothing stays registered with the loop: the descriptor may be closed, and its number
    another's, before the loop runs again.

    Args:
        descriptor: The socket.
        for_writing: Whether to wait for room to write, too.
        timeout_s: How long, in seconds; None waits without end.

    Returns:
        Whether it is ready.
    """
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[bool] = loop.create_future()
    timer = None
    loop.add_reader(descriptor, _settle, ready, True)
    try:
        if for_writing:
            loop.add_writer(descriptor, _settle, ready, True)
        if timeout_s is not None:
            timer = loop.call_later(timeout_s, _settle, ready, False)
        is_ready: bool = await_only(ready)
        return is_ready
    finally:
        loop.remove_reader(descriptor)
        if for_writing:
            loop.remove_writer(descriptor)
        if timer is not None:
            timer.cancel()


def _settle(future: asyncio.Future[bool], is_ready: bool) -> None:
    if not future.done():
        future.set_result(is_ready)


async def connect(
    dsn: str = "",
    *,
    autocommit: bool = False,
    timeout: float | None = None,
    adapters: Adapters | None = None,
    **keywords: Any,
) -> AsyncConnection:
    """Connect to a server; as `poolproof.driver.connect`, which says what all means.

    Names are looked up, and files are read, beside the loop.

    Args:
        dsn: A URL, or libpq's ``name=value`` pairs.
        autocommit: Whether each statement commits by itself.
        timeout: For the whole of connecting, in seconds.
        adapters: The ways in which values travel; None for those of all.
        keywords: libpq's keywords; `pipeline` and `prepare_threshold`.

    Raises:
        Error: As `poolproof.driver.connect`.
    """
    opened = await greenlet_spawn(
        open_as,
        Connection,
        wait_in_loop,
        dsn,
        autocommit=autocommit,
        timeout=timeout,
        adapters=adapters,
        **keywords,
    )
    return AsyncConnection(opened)


class AsyncConnection:
    """A session with a server. One task at a time uses it.

    As an asynchronous context manager it commits at the end, rolls back after an
    exception, and closes in both cases. A task that is cancelled while it waits goes on
    at once, and costs the connection.

    Attributes:
        sync: The session itself, whose methods wait, and so must be called in a
            greenlet of SQLAlchemy's.
    """

    __slots__ = ("__weakref__", "sync")

    def __init__(self, sync: Connection) -> None:
        """Take over a session; `connect` makes one.

        Args:
            sync: One that waits by `wait_in_loop`.
        """
        self.sync = sync

    # --- statements -----------------------------------------------------------------

    def cursor(
        self,
        name: str | None = None,
        *,
        scrollable: bool | None = None,
        withhold: bool = False,
    ) -> AsyncCursor:
        """Make a cursor; see `Connection.cursor`.

        Args:
            name: Of a cursor that the server keeps.
            scrollable: Whether the server's can go backwards.
            withhold: Whether the server's outlives the transaction.
        """
        made = self.sync.cursor(name, scrollable=scrollable, withhold=withhold)
        return AsyncCursor(self, made)

    async def execute(
        self, statement: str, parameters: Parameters | None = None
    ) -> AsyncCursor:
        """Run a statement in a new cursor, and return that.

        Args:
            statement: With ``%s`` or ``%(name)s`` for each value.
            parameters: A sequence or a mapping.
        """
        return await self.cursor().execute(statement, parameters)

    def pipeline(self) -> AsyncPipeline:
        """Send statements together: ``async with connection.pipeline():``.

        As `Connection.pipeline`. What a cursor is asked for without waiting, such as
        its `rowcount`, is there once `AsyncPipeline.sync`, the end of the block or a
        fetch has been waited for.

        Raises:
            InterfaceError: The connection is closed.
        """
        self.sync.refuse_closed()
        found = self.sync.pipelined
        if not isinstance(found, _LoopsPipeline):
            found = _LoopsPipeline(self.sync)
        return AsyncPipeline(found)

    async def commit(self) -> None:
        """Commit; see `Connection.commit`."""
        await greenlet_spawn(self.sync.commit)

    async def rollback(self) -> None:
        """Roll back; see `Connection.rollback`."""
        await greenlet_spawn(self.sync.rollback)

    async def ping(self) -> None:
        """Ask the server for a sign of life."""
        await greenlet_spawn(self.sync.ping)

    async def cancel(self) -> None:
        """Ask the server to end the statement that another task is waiting for."""
        await greenlet_spawn(self.sync.cancel)

    async def type_info(self, name: str) -> TypeInfo | None:
        """Ask the server for what it knows of a type; see `Connection.type_info`.

        Args:
            name: The type's name.
        """
        return await greenlet_spawn(self.sync.type_info, name)

    async def notifies(
        self, *, timeout: float | None = None, stop_after: int | None = None
    ) -> AsyncIterator[Notify]:
        """Yield notifications as they come; see `Connection.notifies`.

        Args:
            timeout: How long to wait for them in all, in seconds.
            stop_after: After how many to stop.
        """
        come = self.sync.notifies(timeout=timeout, stop_after=stop_after)
        while (notify := await greenlet_spawn(next, come, None)) is not None:
            yield notify

    # --- what is known of it, and set ------------------------------------------------

    @property
    def wire(self) -> _native.Wire:
        """The bridge's connection."""
        return self.sync.wire

    @property
    def info(self) -> ConnectionInfo:
        """What is known of the server."""
        return self.sync.info

    @property
    def adapters(self) -> Adapters:
        """The ways in which this session's values travel."""
        return self.sync.adapters

    def own_adapters(self) -> Adapters:
        """Return ways that are this session's alone; `register_type` asks for them."""
        return self.sync.own_adapters()

    @property
    def closed(self) -> bool:
        """Whether it was closed, or is lost."""
        return self.sync.closed

    @property
    def broken(self) -> bool:
        """Whether it is lost without having been closed."""
        return self.sync.broken

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self.sync.fileno()

    @property
    def prepare_threshold(self) -> int | None:
        """After how many times a statement is prepared; None for never."""
        return self.sync.prepare_threshold

    @prepare_threshold.setter
    def prepare_threshold(self, value: int | None) -> None:
        self.sync.prepare_threshold = value

    @property
    def autocommit(self) -> bool:
        """Whether each statement commits by itself."""
        return self.sync.autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self.sync.autocommit = value

    @property
    def isolation_level(self) -> str | None:
        """How transactions are kept apart; None for the server's default."""
        return self.sync.isolation_level

    @isolation_level.setter
    def isolation_level(self, value: str | None) -> None:
        self.sync.isolation_level = value

    @property
    def read_only(self) -> bool | None:
        """Whether transactions are read-only; None for the server's default."""
        return self.sync.read_only

    @read_only.setter
    def read_only(self, value: bool | None) -> None:
        self.sync.read_only = value

    @property
    def deferrable(self) -> bool | None:
        """Whether transactions are deferrable; None for the server's default."""
        return self.sync.deferrable

    @deferrable.setter
    def deferrable(self, value: bool | None) -> None:
        self.sync.deferrable = value

    def add_notice_handler(self, handler: Callable[[Diagnostics], object]) -> None:
        """Have a function called for each notice of the server.

        Args:
            handler: Is given what the server says.
        """
        self.sync.add_notice_handler(handler)

    def remove_notice_handler(self, handler: Callable[[Diagnostics], object]) -> None:
        """Have a function called no more.

        Args:
            handler: What was added.
        """
        self.sync.remove_notice_handler(handler)

    # --- its end --------------------------------------------------------------------

    async def close(self) -> None:
        """Close it, at once; what was not committed is rolled back by the server."""
        self.sync.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                await self.commit()
            elif issubclass(kind, Exception) and not self.closed:
                # After a cancellation nothing more is waited for.
                with contextlib.suppress(errors.Error):
                    await self.rollback()
        finally:
            self.sync.close()

    def __repr__(self) -> str:
        return repr(self.sync).replace("driver.", "driver.aio.Async", 1)


class AsyncCursor:
    """Runs statements and keeps their rows; see `Cursor`."""

    __slots__ = ("_connection", "_waits", "sync")

    def __init__(self, connection: AsyncConnection, sync: Cursor) -> None:
        """Make a cursor; `AsyncConnection.cursor` does.

        Args:
            connection: Its connection.
            sync: The cursor itself.
        """
        self._connection = connection
        self.sync = sync
        # An ordinary one has all its rows, and does not wait for them.
        self._waits = sync.name is not None or isinstance(sync, PipelineCursor)

    @property
    def connection(self) -> AsyncConnection:
        """Its connection."""
        return self._connection

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self.sync.closed

    @property
    def description(self) -> list[Described] | None:
        """The columns of the result; None where the statement has none."""
        return self.sync.description

    @property
    def rowcount(self) -> int:
        """How many rows the statement returned or changed; -1 where it has none."""
        return self.sync.rowcount

    @property
    def rownumber(self) -> int | None:
        """The number of the next row, from 0; None without a result."""
        return self.sync.rownumber

    @property
    def statusmessage(self) -> str | None:
        """What the server answered, such as ``INSERT 0 1``; None for nothing."""
        return self.sync.statusmessage

    @property
    def arraysize(self) -> int:
        """How many rows `fetchmany` returns unless told otherwise."""
        return self.sync.arraysize

    @arraysize.setter
    def arraysize(self, value: int) -> None:
        self.sync.arraysize = value

    @property
    def itersize(self) -> int:
        """How many rows the cursor of a server fetches at once."""
        return self.sync.itersize

    @itersize.setter
    def itersize(self, value: int) -> None:
        self.sync.itersize = value

    async def execute(
        self, statement: str, parameters: Parameters | None = None
    ) -> Self:
        """Run a statement; see `Cursor.execute`.

        Args:
            statement: With ``%s`` or ``%(name)s`` for each value.
            parameters: A sequence or a mapping.
        """
        await greenlet_spawn(self.sync.execute, statement, parameters)
        return self

    async def executemany(
        self, statement: str, seq_of_parameters: Iterable[Parameters]
    ) -> None:
        """Run a statement for each of many parameters; see `Cursor.executemany`.

        Args:
            statement: With ``%s`` or ``%(name)s`` for each value.
            seq_of_parameters: What `execute` takes, each.
        """
        await greenlet_spawn(self.sync.executemany, statement, seq_of_parameters)

    async def callproc(
        self, name: str, parameters: Sequence[Any] = ()
    ) -> Sequence[Any]:
        """Call a function; see `Cursor.callproc`.

        Args:
            name: The function's name.
            parameters: Its arguments, in order.
        """
        return await greenlet_spawn(self.sync.callproc, name, parameters)

    async def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row, or None at the end."""
        return await self._fetched(self.sync.fetchone)

    async def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """Return the next rows.

        Args:
            size: How many at most; None means `arraysize`.
        """
        return await self._fetched(self.sync.fetchmany, size)

    async def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the rows that are left."""
        return await self._fetched(self.sync.fetchall)

    async def scroll(self, value: int, mode: str = "relative") -> None:
        """Move to another row; see `Cursor.scroll`.

        Args:
            value: By how many rows, or to which.
            mode: ``relative`` or ``absolute``.
        """
        await self._fetched(self.sync.scroll, value, mode)

    async def _fetched(self, fetch: Callable[..., Fetched], *args: Any) -> Fetched:
        if self._waits:
            return await greenlet_spawn(fetch, *args)
        return fetch(*args)

    async def __aiter__(self) -> AsyncIterator[tuple[Any, ...]]:
        while rows := await self.fetchmany(self.itersize):
            for row in rows:
                yield row

    async def stream(
        self,
        statement: str,
        parameters: Parameters | None = None,
        *,
        size: int | None = None,
    ) -> AsyncIterator[tuple[Any, ...]]:
        """Yield the rows of a statement without having all of them in memory.

        Args:
            statement: A query.
            parameters: As `execute` takes them.
            size: How many rows are fetched at once; None means `itersize`.
        """
        rows = self.sync.stream(statement, parameters, size=size)
        try:
            while (row := await greenlet_spawn(next, rows, None)) is not None:
                yield row
        finally:
            if not self.connection.closed:
                await greenlet_spawn(cast("Any", rows).close)

    def copy(self, statement: str, parameters: Parameters | None = None) -> AsyncCopy:
        """Make a COPY: ``async with cursor.copy("COPY t FROM STDIN") as copy``.

        Args:
            statement: ``COPY … FROM STDIN`` or ``COPY … TO STDOUT``.
            parameters: None; see `Cursor.copy`.
        """
        return AsyncCopy(self.sync.copy(statement, parameters))

    async def close(self) -> None:
        """Close it; its rows are gone."""
        await self._fetched(self.sync.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self.connection.closed:
            await self.close()


class _LoopsPipeline(Pipeline):
    """A pipeline of a session that waits in a loop."""

    def send(self) -> None:
        """Send what waits, and take the answers, errors among them.

        Raises:
            InterfaceError: The caller cannot wait; nothing was sent.
            Error: The connection is of no use.
        """
        # SQLAlchemy says what is missing where greenlet is, at the first use of a loop.
        from greenlet import (  # type: ignore[import-untyped]  # noqa: PLC0415
            getcurrent,
        )

        # Of a greenlet of SQLAlchemy's the parent is the one of the loop.
        if self.is_waiting and getcurrent().parent is None:
            raise errors.InterfaceError(
                "there is no answer yet, for the statement waits in its pipeline: "
                "await pipeline.sync(), or fetch its rows, first"
            )
        super().send()


class AsyncPipeline:
    """Statements that wait, and are sent together; see `Pipeline`."""

    __slots__ = ("_pipeline",)

    def __init__(self, pipeline: Pipeline) -> None:
        """Make it; `AsyncConnection.pipeline` does.

        Args:
            pipeline: The pipeline itself.
        """
        self._pipeline = pipeline

    async def sync(self) -> None:
        """Send what waits, take the answers, and begin anew; see `Pipeline.sync`."""
        await greenlet_spawn(self._pipeline.sync)

    async def __aenter__(self) -> Self:
        self._pipeline.__enter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await greenlet_spawn(self._pipeline.__exit__, kind, error, traceback)


class AsyncCopy:
    """One COPY; see `Copy`."""

    __slots__ = ("sync",)

    def __init__(self, sync: Copy) -> None:
        """Make it; `AsyncCursor.copy` does.

        Args:
            sync: The COPY itself.
        """
        self.sync = sync

    async def __aenter__(self) -> Self:
        await greenlet_spawn(self.sync.__enter__)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await greenlet_spawn(self.sync.__exit__, kind, error, traceback)

    async def write(self, data: bytes | bytearray | memoryview | str) -> None:
        """Send a piece of what is copied; see `Copy.write`.

        Args:
            data: Bytes, or a text.
        """
        for at in range(0, len(data), _AT_ONCE):
            await greenlet_spawn(self.sync.write, data[at : at + _AT_ONCE])
            await asyncio.sleep(0)

    async def write_row(self, row: Sequence[Any]) -> None:
        """Send a row; see `Copy.write_row`.

        Args:
            row: Its values.
        """
        await greenlet_spawn(self.sync.write_row, row)

    async def write_rows(
        self, rows: Iterable[Sequence[Any]] | AsyncIterable[Sequence[Any]]
    ) -> None:
        """Send many rows; see `Copy.write_rows`.

        Args:
            rows: The rows; they may come by an asynchronous iteration too.
        """
        if isinstance(rows, AsyncIterable):
            async for row in rows:
                await self.write_row(row)
            return
        rest = iter(rows)
        while some := list(itertools.islice(rest, _ROWS)):
            await greenlet_spawn(self.sync.write_rows, some)
            await asyncio.sleep(0)

    def set_types(self, types: Iterable[int | str]) -> None:
        """Say of which types the columns are; see `Copy.set_types`.

        Args:
            types: The types' names or numbers.
        """
        self.sync.set_types(types)

    async def read(self) -> bytes:
        """Return the next piece; empty at the end."""
        return await greenlet_spawn(self.sync.read)

    async def read_row(self) -> tuple[Any, ...] | None:
        """Return the next row, or None at the end."""
        return await greenlet_spawn(self.sync.read_row)

    async def rows(self) -> AsyncIterator[tuple[Any, ...]]:
        """Yield the rows; see `Copy.rows`."""
        while rows := await greenlet_spawn(self.sync.read_rows):
            for row in rows:
                yield row
            await asyncio.sleep(0)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while pieces := await greenlet_spawn(self.sync.read_many):
            for piece in pieces:
                yield piece
            await asyncio.sleep(0)
