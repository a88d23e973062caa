"""`postgresql+poolproof` for `create_async_engine`.

SQLAlchemy calls a dialect in a greenlet of the task's. There the driver's own code
waits in the loop by itself, so what the engine is given is the driver's connection, and
no adapter around another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from greenlet import getcurrent  # type: ignore[import-untyped]
from sqlalchemy.engine import AdaptedConnection
from sqlalchemy.util import await_only

from poolproof import driver
from poolproof.dialect.sync import PoolproofDialect
from poolproof.driver.aio import AsyncConnection, wait_in_loop
from poolproof.driver.connector import open_as
from poolproof.driver.session import IDLE
from poolproof.pool.async_pool import AsyncPool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["LoopConnection", "PoolproofDialectAsync"]


class LoopCursor(driver.Cursor):
    """The driver's cursor, as SQLAlchemy's results of tasks use it."""

    async def _async_soft_close(self) -> None:
        """Do nothing: it has its rows, and holds nothing on the server."""


async def _nothing() -> None:
    """Take no turn of the loop."""


class LoopConnection(driver.Connection, AdaptedConnection):
    """The driver's connection, which waits in the loop of whichever task asks."""

    def cursor(
        self,
        name: str | None = None,
        *,
        scrollable: bool | None = None,
        withhold: bool = False,
    ) -> driver.Cursor:
        """Make a cursor; see `poolproof.driver.Connection.cursor`.

        Args:
            name: Of a cursor that the server keeps.
            scrollable: Whether the server's can go backwards.
            withhold: Whether the server's outlives the transaction.
        """
        if name is not None:
            return super().cursor(name, scrollable=scrollable, withhold=withhold)
        self.refuse_closed()
        return LoopCursor(self)

    @property
    def driver_connection(self) -> AsyncConnection:
        """The same for a task: its methods are awaited."""
        return AsyncConnection(self)

    @property
    def wait(self) -> Any:
        """What waits in the loop; each request asks for it before it sends anything.

        Raises:
            MissingGreenlet: Nothing can wait here. The request would be given up in its
                middle, and the connection with it.
        """
        if getcurrent().parent is None:
            await_only(_nothing())
        return wait_in_loop

    @wait.setter
    def wait(self, _waiter: Any) -> None:
        """Stay with the loop."""

    def commit(self) -> None:
        """Commit; where nothing is open, nothing is waited for."""
        if self.wire.status != IDLE:
            super().commit()

    def rollback(self) -> None:
        """Roll back; where nothing is open, nothing is waited for."""
        if self.wire.status != IDLE:
            super().rollback()

    def run_async(self, fn: Callable[[Any], Awaitable[Any]]) -> Any:
        """Await what a function makes of the connection.

        Args:
            fn: Is given `driver_connection`.
        """
        return await_only(fn(self.driver_connection))


class _Module:
    """The driver's module, whose `connect` waits in the loop."""

    def __getattr__(self, name: str) -> Any:
        return getattr(driver, name)

    @staticmethod
    def connect(*args: Any, **keywords: Any) -> LoopConnection:
        create = keywords.pop("async_creator_fn", None)
        # A pool in a loop peeks at the socket, where no answer may be on its way.
        keywords.pop("pipeline", None)
        if create is None:
            return open_as(LoopConnection, wait_in_loop, *args, **keywords)
        given = await_only(create(*args, **keywords)).sync
        return LoopConnection(
            given.wire,
            autocommit=given.autocommit,
            adapters=given.adapters,
            prepare_threshold=given.prepare_threshold,
        )


class PoolproofDialectAsync(PoolproofDialect):
    """SQLAlchemy's PostgreSQL on `poolproof.driver`, in a loop."""

    is_async = True
    supports_statement_cache = True
    poolclass = AsyncPool

    @classmethod
    def import_dbapi(cls) -> Any:
        """Return the driver."""
        return _Module()

    # A statement has its greenlet wait once, also where the answer has come before:
    # otherwise SQLAlchemy takes the driver for one that stops the loop.

    def do_execute(self, *args: Any, **keywords: Any) -> None:
        """Execute a statement.

        Args:
            *args: As SQLAlchemy gives them.
            **keywords: As SQLAlchemy gives them.
        """
        super().do_execute(*args, **keywords)
        await_only(_nothing())

    def do_execute_no_params(self, *args: Any, **keywords: Any) -> None:
        """Execute a statement as it stands.

        Args:
            *args: As SQLAlchemy gives them.
            **keywords: As SQLAlchemy gives them.
        """
        super().do_execute_no_params(*args, **keywords)
        await_only(_nothing())

    def do_executemany(self, *args: Any, **keywords: Any) -> None:
        """Execute a statement for each of many parameters.

        Args:
            *args: As SQLAlchemy gives them.
            **keywords: As SQLAlchemy gives them.
        """
        super().do_executemany(*args, **keywords)
        await_only(_nothing())

    def get_driver_connection(self, connection: Any) -> Any:
        """Return what a task has of a connection.

        Args:
            connection: The engine's.
        """
        return connection.driver_connection
