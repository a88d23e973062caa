"""One attempt at a transaction: open, work, commit, close; and how far it came."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import exc, text

from poolproof._sqlalchemy import record_of
from poolproof.drivers import known
from poolproof.faults.error_info import read
from poolproof.faults.opened import who_made_read_only
from poolproof.pool.entry import Entry
from poolproof.retry import commit_status

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Connection, Engine

    from poolproof.faults.error_info import ReadOnly
    from poolproof.retry.commit_status import Mark

__all__ = ["Attempt", "ConnectionAttempt", "Stage", "check_begin", "check_end"]

_ANYTHING = text("select 1")

Stage = Literal["open", "unit", "commit", "done"]

_ENDED_ITSELF = (
    "the unit of work has ended its transaction itself: leave commit and rollback to "
    "run_transaction, and raise an exception to undo the work"
)
_COMMITS_EACH = (
    "the connection commits each statement by itself (AUTOCOMMIT), so that nothing "
    "of a unit of work could be undone before it is repeated: give run_transaction an "
    "engine without it, such as "
    "engine.execution_options(isolation_level='READ COMMITTED')"
)
_FAILED = (
    "a statement of the unit of work has failed, and the unit went on: the server "
    "would answer the commit with a rollback. Let the error leave the unit, or put "
    "what may fail into begin_nested()"
)


class Attempt:
    """One attempt.

    Attributes:
        engine: Where to ask what became of the commit.
        stage: How far it came: ``"open"``, ``"unit"``, ``"commit"`` (it may have been
            sent), ``"done"``.
        mark: The transaction's number, once it was asked.
        result: What the unit of work returned.
        ended_itself: Whether the unit may have committed by itself.
        read_only: Who made a failed transaction read-only.
        spans_several: Whether the commit is one of several databases, one by one.
    """

    __slots__ = (
        "ended_itself",
        "engine",
        "mark",
        "read_only",
        "result",
        "spans_several",
        "stage",
    )

    def __init__(self, engine: Engine | None) -> None:
        """Prepare it; nothing is opened yet.

        Args:
            engine: Where to ask, when it is known.
        """
        self.engine = engine
        self.stage: Stage = "open"
        self.mark: Mark | None = None
        self.result: Any = None
        self.ended_itself = False
        self.read_only: ReadOnly = "unknown"
        self.spans_several = False

    def run(self, fn: Callable[[Any], Any], *, verify: bool) -> None:
        """Do all of it.

        Args:
            fn: The unit of work.
            verify: Whether to ask for the transaction's number before the commit.
        """
        raise NotImplementedError

    def is_over(self, error: Exception) -> bool:
        """Tell whether all is done, and an error of its connection's way back is none.

        SQLAlchemy wraps what was asked for, not what it does while a connection goes
        back: so an error that a listener met is not taken for one, nor one that it
        raised without a driver.

        Args:
            error: What the attempt ended with after its commit.
        """
        return (
            self.engine is not None
            and not isinstance(error, exc.SQLAlchemyError)
            and _came_through_driver(error)
            and commit_status.is_of_connection(error, self.engine)
        )

    def look_at(self, connection: Connection) -> None:
        """Note what a connection knows about the transaction that has failed.

        Args:
            connection: Before the transaction is rolled back.
        """
        if not (connection.closed or connection.invalidated):
            self.ended_itself |= _commits_each(connection)
            driver = connection.connection.driver_connection
            record = record_of(connection.connection)
            self.read_only = who_made_read_only(record, driver)

    def ready(self, connection: Connection, *, verify: bool) -> None:
        """See before the commit that the server will not answer it with a rollback.

        Args:
            connection: With all its work sent.
            verify: Whether to ask for the transaction's number.

        Raises:
            InvalidRequestError: It would, or the work is committed already.
        """
        check_begin(connection)
        fairy: Any = connection.connection
        entry = record_of(fairy)
        if type(entry) is Entry:
            raw, driver = fairy.dbapi_connection, entry.driver
        else:
            raw = fairy.driver_connection
            driver = known.of(raw, connection.dialect)
        if driver.tells and driver.status(raw) == driver.failed:
            raise exc.InvalidRequestError(_FAILED)
        if verify:
            self.mark = commit_status.mark(connection)
        elif not driver.tells and connection.dialect.name == "postgresql":
            connection.execute(_ANYTHING)  # refused where a statement has failed


class ConnectionAttempt(Attempt):
    """An attempt whose unit of work is given a connection."""

    __slots__ = ("_given", "_isolation_level", "_own")

    def __init__(
        self,
        engine: Engine,
        isolation_level: str | None,
        given: Callable[[Connection], Any] | None = None,
    ) -> None:
        """Prepare it.

        Args:
            engine: Where to check a connection out.
            isolation_level: For its transaction; None is the engine's.
            given: Makes of the connection what the unit is called with.
        """
        super().__init__(engine)
        self._own = engine
        self._isolation_level = isolation_level
        self._given = given

    def run(self, fn: Callable[[Any], Any], *, verify: bool) -> None:
        """Do all of it; see `Attempt.run`."""
        with self._own.connect() as connection:
            if self._isolation_level is not None:
                connection.execution_options(isolation_level=self._isolation_level)
            transaction = connection.begin()
            try:
                check_begin(connection)
                self.stage = "unit"
                given = self._given
                self.result = fn(connection if given is None else given(connection))
                check_end(
                    self.result, ended=connection.get_transaction() is not transaction
                )
                self.ready(connection, verify=verify)
                self.stage = "commit"
                transaction.commit()
                self.stage = "done"
            except BaseException:
                # A connection that broke keeps its transaction until it is rolled back.
                self.ended_itself = connection.get_transaction() is not transaction
                self.look_at(connection)
                transaction.close()
                raise


def _commits_each(connection: Connection) -> bool:
    # All drivers of PostgreSQL, and SQLAlchemy's adapters of them, name it so.
    raw = connection.connection.dbapi_connection
    return getattr(raw, "autocommit", None) is True


def check_begin(connection: Connection) -> None:
    """See that a connection has transactions.

    Args:
        connection: One that is neither closed nor broken.

    Raises:
        InvalidRequestError: It commits each statement by itself.
    """
    if _commits_each(connection):
        raise exc.InvalidRequestError(_COMMITS_EACH)


def check_end(result: object, *, ended: bool) -> None:
    """Look at how a unit of work has returned.

    Args:
        result: What it returned.
        ended: Whether its transaction is over.

    Raises:
        InvalidRequestError: It has committed or rolled back itself.
        TypeError: It returned a coroutine or a generator in the place of its work.
    """
    if inspect.iscoroutine(result):
        result.close()
        msg = (
            "the unit of work returned a coroutine that nobody has awaited: await "
            "run_transaction_async(async_engine, fn) instead"
        )
        raise TypeError(msg)
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        msg = (
            "the unit of work returned a generator, whose work would be done after the "
            "commit: return a list"
        )
        raise TypeError(msg)
    if ended:
        raise exc.InvalidRequestError(_ENDED_ITSELF)


def _came_through_driver(error: Exception) -> bool:
    """Tell whether an error is a driver's, or was raised inside a driver's call."""
    signal = read(error)
    return signal.dbapi or bool(signal.frames)
