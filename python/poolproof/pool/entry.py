"""The pool entry: SQLAlchemy's record, with the ticket to its slot."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from poolproof._log import fields
from poolproof._sqlalchemy import ConnectionRecord
from poolproof.drivers.interruption import is_own
from poolproof.fork import sockets
from poolproof.pool import deadlines, evidence

if TYPE_CHECKING:
    import weakref

    from sqlalchemy.engine.interfaces import DBAPIConnection

    from poolproof._native import Backend, Ticket
    from poolproof._sqlalchemy import ConnectionFairy
    from poolproof.drivers.base import Driver
    from poolproof.pool.hold_warning import Hold
    from poolproof.pool.owner import Owner

__all__ = ["BUSY", "DRAINED", "FOREIGN", "Entry", "begin_reset", "refuse_foreign"]

# Why a connection is discarded, as `PoolStats.discarded` counts it.
BUSY = "in_transaction"
FOREIGN = "foreign"
# When a connection is too old that is to be replaced by whoever has it next.
DRAINED = -1.0

_LISTENS = (
    "Connection %r listens, and is closed by the pool (%s): what a session holds "
    "(LISTEN, advisory locks, temporary tables, SET) goes with it. Listen on a "
    "connection that stays held, or was detached. This is said once"
)


class Entry(deadlines.Bounds):
    """A place in the pool that a connection is in, or was, or will be.

    The ticket belongs to the entry: while the entry is lent, nothing else refers to
    either, so whatever interrupts the caller drops both, and the slot is free again.

    Attributes:
        ticket: The right to the slot, renewed at each checkout.
        driver: What the pool knows of the connection's driver.
        lent_to: The fairy of the last checkout, remembered for when it is detached.
        rested_at: Since when the connection has rested, on the monotonic clock.
        suspect: Whether only a question to the server tells if the connection is at
            rest.
        is_always_suspect: Whether that is so at each checkout.
        reason: Why the connection is being discarded, as far as it is known.
        expires_at: When the connection is too old, on the monotonic clock.
        held: The checkout that is under way, where the pool has a `hold_warning` or has
            seen callers that wait for what they hold.
        may_rest: Whether its finder would as well have a connection that comes to rest
            while this one is being opened.
        is_patient: Whether it waits for a share of the host's budget.
        backend: The connection's backend, where the pool has `end_stranded_backends`.
        is_new: Whether its session is yet to be read, for `reset_on_return`.
        set_again: What is to be set again after each ``DISCARD ALL``: a statement.
        statements: The last that were sent on it, for the journal.
    """

    __slots__ = (
        "backend",
        "driver",
        "expires_at",
        "held",
        "is_always_suspect",
        "is_new",
        "is_patient",
        "lent_to",
        "may_rest",
        "reason",
        "rested_at",
        "set_again",
        "statements",
        "suspect",
        "ticket",
    )

    ticket: Ticket
    lent_to: weakref.ref[ConnectionFairy] | None
    driver: Driver
    reason: str | None
    held: Hold | None
    backend: Backend | None
    set_again: str | None

    def __init__(self, owner: Owner, began: float, due: float | None) -> None:
        """Make an entry that has no connection yet; `get_connection` opens it.

        Args:
            owner: The pool.
            began: When the checkout began, on the monotonic clock.
            due: When the connection must be there, on the monotonic clock.
        """
        self.owner = owner
        self.lent_to = None
        self.socket = None
        self.began = began
        self.due = due
        self.rested_at = 0.0
        self.suspect = self.is_always_suspect = False
        self.operation = None
        self.block = None
        self.bound = False
        self.reason = None
        self.expires_at = 0.0
        self.held = None
        self.may_rest, self.is_patient = False, True
        self.backend = None
        self.is_new = False
        self.set_again = None
        self.statements: deque[object] = deque(maxlen=evidence.STATEMENTS)
        super().__init__(owner, connect=False)  # type: ignore[arg-type]  # a pool
        # A fork during the connecting needs it, to make this quiet in the child.
        owner.remember(self)

    def get_connection(self) -> DBAPIConnection:
        """Return the connection, opened anew when it must be.

        Raises:
            Exception: Whatever the driver or a listener raises.
        """
        # As SQLAlchemy's, in the common case: a call would cost more than it.
        connection = self.dbapi_connection
        owner = self.owner
        if (
            connection is not None
            and owner._recycle < 0
            and owner._invalidate_time <= self.starttime
            and self._soft_invalidate_time <= self.starttime
            and not self.is_new
        ):
            return connection
        try:
            connection = ConnectionRecord.get_connection(self)
            if self.is_new:
                self._read_session()
        except BaseException as error:
            self.explain(error)
            if hasattr(self, "ticket"):  # lent before: the pool counts a first one
                self.owner.unopened.add("checkout")
            raise
        return connection

    def _read_session(self) -> None:
        """Read what has been set in a session, after the listeners of `connect`.

        Raises:
            Exception: Whatever the driver raises; the connection is of no use then.
        """
        self.is_new = False
        try:
            self.owner.read_session(self)
        except BaseException as error:
            self.explain(error)
            self.invalidate(error if isinstance(error, Exception) else None)
            raise

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        """Discard the connection, and count why.

        Where a fault is the reason the socket is severed first, so that nothing is sent
        by closing it: a goodbye, or a rollback, would be taken for something else by a
        peer that is out of step, and would wait for one that hangs.

        Args:
            e: What showed that it is of no use, if anything did.
            soft: Replace it at the next checkout instead.
        """
        if not soft and self.dbapi_connection is not None:
            if e is not None:
                self.explain(e)
            passed = self.exceeded()
            reason = f"{passed.step}_timeout" if passed else self.reason
            if sockets.is_foreign(self.dbapi_connection):
                reason = FOREIGN
            elif reason is None:
                reason = "invalidated" if e is None else "error"
            else:
                self.sever()
            self.owner.discarded.add(reason)
            self.owner.totals.discarded.add(reason)
            self.reason = None
            try:
                evidence.discarded(self, reason)
            finally:  # a signal's handler may raise in the middle of that
                self._close_discarded(e, reason)
            return
        ConnectionRecord.invalidate(self, e, soft)

    def _close_discarded(self, e: BaseException | None, reason: str) -> None:
        if not self.owner.settings.end_stranded_backends or reason == "invalidated":
            ConnectionRecord.invalidate(self, e)
            return
        try:
            ConnectionRecord.invalidate(self, e)
        finally:
            left, self.backend = self.backend, None
            self.owner.stranded.end(left, reason)

    def sever(self) -> None:
        """Have the server learn that the session has ended, and send nothing."""
        if self.socket is not None and not self.driver.is_waited_for(
            self.dbapi_connection
        ):
            self.socket.sever()

    def hold_limit(self) -> tuple[str, float]:
        """Say for how long the connection might be held, and in which way."""
        settings = self.owner.settings
        idle = None if self.held is None else self.held.idle
        if settings.hold_timeout is None or (idle is not None and idle.is_ended):
            return ("idle_hold", settings.idle_hold_timeout or 0.0)
        return super().hold_limit()

    def charge(self, reason: str | None, *, doubtful: bool) -> None:
        """Note what an error costs.

        Args:
            reason: Why the connection is discarded, if it is for this error.
            doubtful: Whether it may be out of step, so that only asking can tell.
        """
        if reason is not None:
            self.reason = reason
        if doubtful:
            self.suspect = True

    def bound_question(self) -> deadlines.bounded | None:
        """Bound a question of the pool's own on the connection.

        Returns:
            Within it the question may be asked; None in the middle of a transaction.
        """
        driver = self.driver
        if not driver.tells or driver.status(self.dbapi_connection) != driver.idle:
            return None
        return deadlines.bounded(self, "ping", self.owner.settings.ping_timeout)

    def retire(self, reason: str) -> None:
        """Close the connection, which is at rest and in order, as the driver does.

        Args:
            reason: Why, as `PoolStats.discarded` counts it.
        """
        if reason == "lifetime" and self.expires_at == DRAINED:
            reason = "drained"
        if not self.owner.warned_of_state and self.driver.listens(
            self.dbapi_connection
        ):
            self.owner.warned_of_state = True
            self.owner.logger.warning(
                _LISTENS,
                self.dbapi_connection,
                reason,
                extra=self.fields(reason=reason),
            )
        self.owner.logger.debug(
            "Retiring connection %r (%s)", self.dbapi_connection, reason
        )
        self.owner.discarded.add(reason)
        self.owner.totals.discarded.add(reason)
        self.close()

    def checkin(self, _fairy_was_created: bool = True) -> None:
        """Go back to the pool, whatever the listeners do.

        An error of a `checkin` listener ends SQLAlchemy's check-in half-way; whoever
        keeps that error keeps this entry alive, and with it the slot.
        """
        owner = self.owner
        if (
            self.finalize_callback
            or owner.listeners.checkin is not owner.quiet_checkin
            or owner.hears_checkins
            or self.fairy_ref is None
        ):
            self._checkin_heard(_fairy_was_created)
            return
        try:  # all that SQLAlchemy's does then
            self.fairy_ref = None
            owner._do_return_conn(self)
        except BaseException as error:
            self.explain(error)
            owner.give_up(self)
            raise

    def _checkin_heard(self, fairy_was_created: bool) -> None:
        """Go back to the pool where others are called before."""
        self.owner.see_new_listeners()
        if self.finalize_callback or self.owner.bounds_checkins:
            self.bound_checkin()
        try:
            if self.finalize_callback:
                self._undo_options()
            ConnectionRecord.checkin(self, fairy_was_created)  # sooner than super()
        except BaseException as error:
            self.explain(error)
            self.owner.give_up(self)
            raise

    def _undo_options(self) -> None:
        """Undo what execution options have set, or else discard the connection.

        The caller's work has ended, and well: an error here is none of it. One that was
        raised would be taken for the failure of what may just have been committed.
        """
        try:
            while self.finalize_callback and self.dbapi_connection is not None:
                self.finalize_callback.pop()(self.dbapi_connection)
        except Exception as error:
            if not is_own(error, self.owner):
                raise
            self.owner.logger.info(
                "Connection %r broke at its check-in (%s); discarding it",
                self.dbapi_connection,
                type(error).__name__,
                extra=self.fields(error=type(error).__name__),
            )
            self.sever()
            self.invalidate(error)

    def fields(self, **known: Any) -> dict[str, Any]:
        """Name what is known of a record about this connection, for its `extra`.

        Args:
            **known: What else is known, as `_log.fields` takes it.
        """
        pid = deadlines.backend_pid(self)
        return fields(pool=self.owner.name(), backend_pid=pid, **known)

    def abandon_suspended(self) -> bool:
        """End the connection if something is suspended in the middle of it.

        The server then rolls back by itself. To ask it would be to wait for a lock of
        the driver's, which no deadline frees.

        Returns:
            Whether it was so; the connection is closed, and discarded at its check-in.
        """
        connection: Any = self.dbapi_connection
        if self.reason == BUSY:
            return True  # at the beginning of this check-in
        if self.socket is None or not self.driver.is_suspended(connection):
            return False
        self.reason = BUSY
        if not self.driver.is_waited_for(connection):
            self.socket.sever()
        self.driver.abandon(connection)
        return True


def refuse_foreign(pool: Owner, connection: Any) -> None:
    """Send nothing through a number that is not the connection's socket any more.

    Args:
        pool: The connection's pool.
        connection: A DBAPI connection on which the pool would send something.

    Raises:
        OperationalError: The driver's own, as after every disconnect. Closing the
            connection then ends the transaction.
    """
    if sockets.is_foreign(connection):
        dbapi: Any = getattr(pool._dialect, "dbapi", None)
        msg = (
            f"connection already closed: descriptor {sockets.descriptor(connection)} "
            "was closed beside its driver and may be another file or socket by now; "
            "nothing was sent. Look for os.closerange, a daemonizing library, or a "
            "double close"
        )
        raise getattr(dbapi, "OperationalError", ConnectionAbortedError)(msg)


def begin_reset(_: object, record: object, _state: object) -> None:
    """Bound a check-in before other listeners of `reset` ask anything.

    Args:
        record: The pool entry; None for a connection that was detached.

    Raises:
        OperationalError: See `refuse_foreign`.
    """
    if isinstance(record, Entry):
        refuse_foreign(record.owner, record.dbapi_connection)
        record.abandon_suspended()
        record.bound_checkin()
