"""What the pool, the guard and the sockets ask a driver: one object each.

Each driver has a subclass in a file of its own, which says what differs there. Every
method that is given a connection sends nothing, but for `ask`.

Long, because it is one idea: all that differs from driver to driver.
"""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from typing import TypeAlias

    from poolproof import _native
    from poolproof.drivers.connect_plan import Bound, ConnectPlan
    from poolproof.drivers.conninfo import Conninfo

    # What is still to be done on a connection in its loop.
    AtLoop: TypeAlias = Callable[[Any], Coroutine[Any, Any, None]]

__all__ = ["Driver", "number_of"]

_NEVER = object()  # no status is this one


def _does_not_say(_connection: Any) -> None:
    return None


def number_of(candidate: Any) -> int | None:
    """Return the descriptor that an object says it has.

    Args:
        candidate: A connection, a socket, or anything else.

    Returns:
        The descriptor, or None where there is none, or the object refuses, as it may
        when it is closed.
    """
    fileno: Callable[[], object] | None = getattr(candidate, "fileno", None)
    if callable(fileno):
        with contextlib.suppress(Exception):
            number = fileno()
            if isinstance(number, int) and number >= 0:
                return number
    return None


class Driver:
    """A driver of which nothing is known but PEP 249; those that are known inherit.

    Attributes:
        name: As SQLAlchemy names it, or what is known about it.
        status: Says the transaction status of a connection, without a round trip. It
            is asked at each checkout and check-in, and is no function of Python's where
            that can be.
        idle: The status when no transaction is open and nothing is under way.
        tells: Whether the status means anything.
        must_ask: Whether only a question tells if a connection is at rest, because the
            driver reads ahead into a buffer of its own, or because it is not known.
        keeps_alive: Whether it turns TCP keep-alives on unless told otherwise.
        failed: The status when a statement has failed, so that the transaction can only
            be rolled back.
        active: The status in the middle of a command.
        locks: Whether a call waits for a lock of the connection's, which something that
            is suspended may hold.
        is_reset: Tells of a connection whose status is idle whether the driver's own
            `rollback` would do nothing, and need not be called. None where that is not
            known.
        is_of_postgresql: Whether it speaks to PostgreSQL.
        calls_password: Whether the password may be a function that it calls.
        is_at_loop: Whether its connections belong to a loop of asyncio's, and are
            SQLAlchemy's adapters.
    """

    __slots__ = (
        "active",
        "failed",
        "idle",
        "is_reset",
        "keeps_alive",
        "locks",
        "must_ask",
        "name",
        "status",
        "tells",
    )

    status: Callable[[Any], object]
    is_reset: Callable[[Any], bool] | None
    is_of_postgresql = True
    calls_password = False
    is_at_loop = False

    def __init__(
        self,
        name: str,
        status: Callable[[Any], object] | None = None,
        *,
        idle: object = None,
        active: object = _NEVER,
        failed: object = None,
        must_ask: bool = True,
        keeps_alive: bool = False,
        locks: bool = False,
    ) -> None:
        """Say what holds for the driver; see the attributes.

        Args:
            name: Its name.
            status: Says the transaction status; None where the driver does not.
            idle: A status.
            active: A status; by default none.
            failed: A status; by default none.
            must_ask: Whether only a question tells.
            keeps_alive: Whether it turns keep-alives on.
            locks: Whether a call waits for a lock.
        """
        self.name = name
        self.status = _does_not_say if status is None else status
        self.tells = status is not None
        self.is_reset = None
        self.idle = idle
        self.active = active
        self.failed = failed
        self.must_ask = must_ask
        self.keeps_alive = keeps_alive
        self.locks = locks

    # --- what a connection is -------------------------------------------------------

    def descriptor(self, connection: Any) -> int | None:
        """Find the descriptor that a connection talks through.

        Args:
            connection: A DBAPI connection, or what SQLAlchemy adapts one with.

        Returns:
            The descriptor, or None where the driver shows none (SQLite, stubs, mocks).
        """
        return number_of(connection)

    def wire(self, connection: Any) -> _native.Wire | None:
        """Return what looks at a connection in place of a peek at its socket.

        Args:
            connection: A DBAPI connection.

        Returns:
            Our own driver's wire, which may have an answer that is still to be read;
            None for every other driver.
        """
        del connection
        return None

    def backend_pid(self, connection: Any) -> int | None:
        """Say which backend of the server a connection talks to, without a round trip.

        Args:
            connection: The driver's own connection.

        Returns:
            Its process id there, 1 or more; None where the driver does not know, and
            behind a pooler that says what it is: the number is made up there.
        """
        if self.pooler_mode(connection) is not None:
            return None
        told = self.told_pid(connection)
        return told if told is not None and told > 0 else None

    def pooler_mode(self, connection: Any) -> str | None:
        """Say how a pooler in between lends the server's sessions, without a question.

        PgBouncer reports it at connecting, from 1.26 on.

        Args:
            connection: The driver's own connection.

        Returns:
            ``"session"``, ``"transaction"`` or ``"statement"``; None where no pooler
            reports itself, or the driver does not keep what is reported.

        Source:
            PgBouncer's changelog, 1.26.0.
        """
        return self.setting(connection, "pgbouncer.pool_mode")

    def told_pid(self, connection: Any) -> int | None:
        """Return the number that stands for the backend, as it was told at connecting.

        A pooler makes one up, which may be below 0.

        Args:
            connection: The driver's own connection.

        Returns:
            The number; None where the driver does not keep it.
        """
        del connection
        return None

    def setting(self, connection: Any, name: str) -> str | None:
        """Return a setting that the server reports by itself, if the driver keeps it.

        Args:
            connection: The driver's own connection.
            name: The setting's name.
        """
        del connection, name
        return None

    # --- in which state it is -------------------------------------------------------

    def is_closed(self, connection: Any) -> bool:
        """Tell whether the driver says that a connection is closed, or broken.

        Args:
            connection: The driver's own connection.
        """
        return bool(getattr(connection, "closed", False))

    def has_ended(self, connection: Any) -> bool:
        """Tell whether a driver has noticed by itself that a session has ended.

        Those of asyncio do while it rests: their loop reads.

        Args:
            connection: A DBAPI connection whose status is not the idle one.
        """
        del connection
        return False

    def is_busy(self, connection: Any) -> bool:
        """Tell whether the driver says that it is in the middle of a command.

        Args:
            connection: The driver's own connection.
        """
        return self.status(connection) == self.active

    def has_refused(self, error: BaseException) -> bool:
        """Tell whether a call was refused because another is under way.

        The connection is in the middle of that one, and none the worse for this.

        Args:
            error: What the call has raised.
        """
        del error
        return False

    def is_waited_for(self, connection: Any) -> bool:
        """Tell whether a task waits in its loop, which hears of the descriptor alone.

        Args:
            connection: SQLAlchemy's adapter.

        Returns:
            Whether closing the connection tells it, unless the descriptor was made
            another's before: the loop would not hear of it any more.
        """
        del connection
        return False

    def is_suspended(self, connection: Any) -> bool:
        """Tell whether a connection comes back in the middle of a command.

        Something is suspended in it then, and the next call might wait for that.

        Args:
            connection: A DBAPI connection.
        """
        return self.is_busy(connection)

    def is_piped(self, connection: Any) -> bool:
        """Tell whether a pipeline was entered and not left.

        Args:
            connection: A DBAPI connection.
        """
        del connection
        return False

    def is_of_another_hub(self, connection: Any) -> bool:
        """Tell whether gevent can wait for a connection in another thread alone.

        Args:
            connection: A DBAPI connection.
        """
        del connection
        return False

    def listens(self, connection: Any) -> bool:
        """Tell whether a session is known to listen, without asking it.

        Args:
            connection: A DBAPI connection.

        Returns:
            Whether a notification has come that nobody has read, or something is to be
            called at one. A LISTEN that nothing came of is not seen.
        """
        del connection
        return False

    # --- whether it may write -------------------------------------------------------

    def read_only(self, connection: Any) -> bool | None:
        """Say whether a session's transactions are read-only by themselves.

        Args:
            connection: The driver's own connection.

        Returns:
            None where the server does not report it (before PostgreSQL 14), or the
            driver does not keep it.
        """
        standby = self.setting(connection, "in_hot_standby")
        default = self.setting(connection, "default_transaction_read_only")
        if "on" in {standby, default}:
            return True
        return False if standby == default == "off" else None

    def in_hot_standby(self, connection: Any) -> bool:
        """Tell whether the server reports that it is a standby.

        Args:
            connection: The driver's own connection.
        """
        return self.setting(connection, "in_hot_standby") == "on"

    def is_told_read_only(self, connection: Any) -> bool:
        """Tell whether the application has told the driver to begin read-only ones.

        Args:
            connection: The driver's own connection.
        """
        del connection
        return False

    # --- before there is a connection -----------------------------------------------

    def connect_plan(
        self, dbapi: Any, bound: Bound, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> ConnectPlan | None:
        """Say what the driver is to be told, so that connecting keeps to a bound.

        Args:
            dbapi: The driver's module.
            bound: What holds for this call.
            args: The arguments of its `connect()`.
            keywords: Those by name.

        Returns:
            The plan, or None where the call is left alone.
        """
        del dbapi, bound, args, keywords
        return None

    def server_params(
        self, dbapi: Any, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Conninfo:
        """Say in libpq's words which server the driver would connect to, and how.

        Args:
            dbapi: The driver's module.
            args: The arguments of its `connect()`.
            keywords: Those by name; the caller has no more use for them.

        Raises:
            ArgumentError: It cannot be known; the message names `control_dsn`.
        """
        raise NotImplementedError

    # --- questions ------------------------------------------------------------------

    def ask(self, connection: Any) -> bool:
        """Ask the server something that was never asked before; compare the answer.

        The question is in the name of the answer's only column: that needs no
        conversion, which an application may have changed, and no kind of row. Nor does
        a name count where statements are told apart: for `pg_stat_statements` all
        questions are one.

        Nothing is left behind: no prepared statement, no setting of the session.

        Args:
            connection: A DBAPI connection that is not in a transaction.

        Returns:
            Whether the answer is the one to this question.

        Raises:
            Exception: Whatever the driver raises. The connection is of no use then.
        """
        name = f"poolproof_{secrets.randbits(64):016x}"
        before = getattr(connection, "autocommit", None)
        if before is False and self._tells_the_session(connection):
            before = None  # a transaction, then: that ends with itself
        commits_itself = before is True
        if before is False:
            connection.autocommit = commits_itself = True
        threshold = self.prepare_nothing(connection)
        # An error leaves the connection as it is, for it will be discarded: to put it
        # in order would raise an error in place of the one, or of an interruption.
        cursor = connection.cursor()
        cursor.execute(f"select null as {name}")
        answered = cursor.description
        cursor.close()
        self.prepare_again(connection, threshold)
        if not commits_itself:
            connection.rollback()
        if before is False:
            connection.autocommit = False
        return bool(answered) and answered[0][0] == name

    def prepare_nothing(self, connection: Any) -> Any:
        """Have the driver neither prepare nor count what is asked next.

        Args:
            connection: A DBAPI connection.

        Returns:
            What `prepare_again` is to put back.
        """
        del connection

    def prepare_again(self, connection: Any, threshold: Any) -> None:
        """Undo `prepare_nothing`.

        Args:
            connection: The same connection.
            threshold: What that returned.
        """

    def run_alone(self, connection: Any, statements: Iterable[str]) -> None:
        """Run statements, each by itself: in no transaction, and none prepared.

        Args:
            connection: A DBAPI connection that is not in a transaction.
            statements: What to run, one after the other.

        Raises:
            Exception: Whatever the driver raises. The connection is of no use then.
        """
        before = getattr(connection, "autocommit", True)
        if before is not True:
            connection.autocommit = True
        threshold = self.prepare_nothing(connection)
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        cursor.close()
        self.prepare_again(connection, threshold)
        if before is not True:
            connection.autocommit = before

    def forget_prepared(self, connection: Any) -> None:
        """Have the driver know that the server has forgotten prepared statements.

        Args:
            connection: A DBAPI connection.
        """

    def _tells_the_session(self, connection: Any) -> bool:
        """Tell whether a driver says SET when its autocommit is switched."""
        del connection
        return False

    # --- ends and errors ------------------------------------------------------------

    def meet(self, connection: Any) -> None:
        """Prepare a new connection that belongs to a loop.

        Args:
            connection: SQLAlchemy's adapter.
        """

    def see_pooler(self, connection: Any) -> bool:
        """Prepare a new connection for a pooler that stands before the server.

        Args:
            connection: SQLAlchemy's adapter, in its greenlet.

        Returns:
            Whether it is in a transaction now, which `leave_beginning` is to end.
        """
        del connection
        return False

    def leave_beginning(self, connection: Any) -> None:
        """End the transaction that `see_pooler` has begun, if it goes on.

        Args:
            connection: SQLAlchemy's adapter, in its greenlet.
        """

    def at_loop(self, connection: Any) -> AtLoop | None:
        """Say what is still to be done, before it is closed, in its loop.

        Args:
            connection: SQLAlchemy's adapter.

        Returns:
            What does it, and closes; None where it can be closed at once.
        """
        del connection
        return None

    def leave_to_parent(self, connection: Any) -> None:
        """In a child: have nothing that goes on reach for the parent's session.

        Args:
            connection: SQLAlchemy's adapter, whose socket is severed.
        """

    def drop(self, connection: Any) -> None:
        """End a connection whose loop has been closed.

        Args:
            connection: SQLAlchemy's adapter, whose socket is severed.
        """
        self.abandon(connection)

    def abandon(self, connection: Any) -> None:
        """End a connection in whose middle something is suspended, without waiting.

        Args:
            connection: A DBAPI connection whose socket is shut, so that nothing is
                sent.
        """
        connection.close()

    def unsent(self, connection: Any) -> Any:
        """Return the file through which a driver writes, if it leaves that open.

        Args:
            connection: A DBAPI connection.

        Returns:
            The file, to be closed after the connection; None where there is none.
        """
        del connection

    def explain_error(self, connection: Any, error: BaseException) -> None:
        """Make the end of the session the cause of an error, where it is certain.

        Args:
            connection: The driver's own connection, as the error has left it.
            error: The driver's exception, or what SQLAlchemy's adapter made of it.
        """

    def in_own_words(
        self, verb: Callable[..., Any], dialect: Any
    ) -> Callable[..., Any]:
        """Have a driver say in its own words that the network has failed.

        Args:
            verb: A method of a dialect.
            dialect: The dialect.

        Returns:
            The verb; as it is, where the driver does so by itself.
        """
        del dialect
        return verb

    def translated(self, error: OSError, dialect: Any) -> BaseException | None:
        """Say in a driver's own words that the network has failed; see `in_own_words`.

        Args:
            error: An error of the system.
            dialect: The dialect in whose driver it was raised.

        Returns:
            An error of the driver's, whose cause is the other; None where it is not
            from where the driver reads, or is the driver's already.
        """
        del error, dialect
        return None
