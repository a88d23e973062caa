"""A checkout and a check-in at a loop, where nothing is out of the ordinary.

A loop has one thread for all its tasks, so what a checkout takes all of them wait for.
Here is all that SQLAlchemy's pool and `Pool` do then, in few calls; whatever else there
is to do has its own way, in those. A borrower that is collected is told of by the
`Loan` alone: SQLAlchemy's finalizer of each would do the same a second time.
"""

from __future__ import annotations

import os
from asyncio import current_task
from inspect import iscoroutinefunction
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import ref

from sqlalchemy import exc
from sqlalchemy.pool import reset_rollback
from sqlalchemy.util import safe_reraise

from poolproof import _native
from poolproof._sqlalchemy import hears, lendable, let_go_of_collection
from poolproof.errors import ConnectionForked
from poolproof.fork import renewal
from poolproof.pool import deadlines, maintenance_thread, validation
from poolproof.pool.entry import BUSY
from poolproof.pool.loop_entry import RETURNED, Loan, LoopEntry, checkout_places
from poolproof.pool.loop_fairy import LoopFairy
from poolproof.pool.loops import running_loop
from poolproof.pool.pool import Pool

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task

    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

    from poolproof.pool.entry import Entry

__all__ = ["LoopCheckout"]


class LoopCheckout(Pool):
    """The undisturbed way of `AsyncPool`'s checkouts and check-ins."""

    # What was lent, until it comes back or the borrower's object of it has gone: a
    # reference is told of that only if it is not lost together with it.
    _loans: set[Loan]
    _gate: _native.Gate
    _idle: dict[int, Entry]
    # What `LoopFairy` compares with: the listeners of `reset` as long as there are
    # none, and the verb of the dialect that is SQLAlchemy's own, where one is called.
    quiet_reset: Any
    hears_resets: Any
    own_rollback: Any

    def _see_listeners(self) -> None:
        super()._see_listeners()
        resets = self.listeners.reset
        self.quiet_reset = None if resets else resets
        self.hears_resets = hears(resets)
        rollback = getattr(self._dialect, "do_rollback", None)
        rolls_back = self._reset_on_return is reset_rollback
        is_own = rolls_back and getattr(rollback, "is_sqlalchemys", False)
        self.own_rollback = rollback if is_own else None

    def _prepare(self) -> None:
        super()._prepare()
        for name in ("connect", "checkout", "checkin", "reset"):
            for listener in getattr(self.listeners, name):
                _refuse_coroutine(name, listener)

    def connect(self) -> PoolProxiedConnection:
        """Check a connection out; its `close()` checks it in.

        Returns:
            The pooled connection.

        Raises:
            PoolTimeout: No slot became free within `timeout`.
        """
        listeners = self.listeners
        if (
            listeners.checkout is not self._quiet_checkout
            or listeners.reset is not self._seen_reset
            or self._hears_checkouts
        ):
            return self._connect_heard()
        loop = running_loop()
        task = None if loop is None else current_task(loop)
        entry: Any = self._get(loop, task)
        connection = entry.dbapi_connection
        if (
            connection is None
            or self._recycle >= 0
            or self._invalidate_time > entry.starttime
            or entry._soft_invalidate_time > entry.starttime
        ):
            connection = self._connected(entry)
        echo = self._should_log_debug()
        fairy = lendable(LoopFairy, self, connection, entry, echo)
        if echo:
            self.logger.debug("Connection %r checked out from pool", connection)
        # As `_lend`: a call would cost more than it.
        loan: Any = Loan(fairy, _collected)
        loan.entry = entry
        loan.places = checkout_places()
        loan.task = None if task is None else ref(task)
        fairy._finalizer = entry.fairy_ref = entry.lent_to = loan
        self._loans.add(loan)
        if entry.bound:
            self._end_checkout(entry, fairy)
        if self._bounds_holders or deadlines.ever_used:
            entry.bound_holding()
        if self._is_minded:
            maintenance_thread.on_checkout(self, entry)
        return fairy  # type: ignore[no-any-return]

    def _connect_heard(self) -> PoolProxiedConnection:
        """Check a connection out where listeners hear of it."""
        fairy: Any = super().connect()
        entry = fairy._connection_record
        if type(entry) is LoopEntry:
            let_go_of_collection(fairy)
            self._lend(fairy, entry)
        return fairy  # type: ignore[no-any-return]

    def _lend(self, fairy: Any, entry: LoopEntry) -> None:
        """Remember what is lent to whom."""
        loop = running_loop()
        task = None if loop is None else current_task(loop)
        loan: Any = Loan(fairy, _collected)
        loan.entry = entry
        loan.places = checkout_places()
        loan.task = None if task is None else ref(task)
        fairy._finalizer = entry.fairy_ref = entry.lent_to = loan
        self._loans.add(loan)

    def _connected(self, entry: LoopEntry) -> Any:
        """Open a connection where there is none, or none that may be lent any more."""
        try:
            return entry.get_connection()
        except BaseException as error:
            with safe_reraise():
                entry._checkin_failed(error, _fairy_was_created=False)
            raise

    def _do_get(self) -> ConnectionPoolEntry:
        loop = running_loop()
        return self._get(loop, None if loop is None else current_task(loop))

    def _get(  # noqa: C901 - a call would cost more
        self, loop: AbstractEventLoop | None, task: Task[Any] | None
    ) -> ConnectionPoolEntry:
        """Take an entry for a task, as `_do_get`."""
        began = now = monotonic()
        due = None if self._checkout_timeout is None else now + self._checkout_timeout
        if deadlines.ever_used:
            due = self._due(now, due)
        try:
            # Its thread runs several callers, which must be told apart.
            strand = None if task is None else id(task)
            entry: Any = self._gate.lend(self._idle, strand)
            if type(entry) is not LoopEntry or entry.loop is not loop:
                entry = self._lend_otherwise(entry, began, due)
                if not entry.rested_at:
                    return entry  # type: ignore[no-any-return]
                now = monotonic()
        except _native.Forked:
            renewal.renew(self)
            if loop is not None and running_loop() is not loop:
                # A task of the parent's, in a child: its loop does not run here.
                raise ConnectionForked(os.getppid(), os.getpid()) from None
            return self._get(loop, task)
        entry.began = began
        entry.due = due
        connection = entry.dbapi_connection
        if connection is not None:
            try:
                # As `at_checkout`, in the common case: a call would cost more than it.
                driver, socket = entry.driver, entry.socket
                if (
                    now < entry.expires_at
                    and not entry.suspect
                    and now - entry.rested_at <= self.idle_after
                    and driver.status(connection) == driver.idle
                    and (socket is None or socket.probe() is None)
                ):
                    finding = None
                elif entry.expires_at <= now:
                    finding = "lifetime"
                else:
                    finding = validation.at_checkout(entry, now)
            except BaseException:  # interrupted in the middle of a question
                self._discard(entry, "interrupted")
                self.give_up(entry)
                raise
            if finding is not None:
                self._discard(entry, finding)
            elif self._bounds_checkouts:
                entry.bound_checkout()
        return entry  # type: ignore[no-any-return]

    def _do_return_conn(self, record: Any) -> None:
        entry: LoopEntry = record
        connection: Any = entry.dbapi_connection
        if connection is None:
            super()._do_return_conn(entry)
            return
        loan: Any = entry.lent_to
        fairy = None if loan is None else loan()
        if fairy is not None and fairy._connection_record is entry:
            # See `Pool`: the next holder's before long.
            fairy._connection_record = fairy.dbapi_connection = None
            # From here on nothing is lost with the borrower's object.
            fairy._finalizer = RETURNED
            entry.lent_to = None
            self._loans.discard(loan)
        if entry.bound:
            entry.unbound()
        driver = entry.driver
        if driver.status(connection) != driver.idle:
            self._discard(entry, BUSY)
        self._have_rest(entry)

    def take_back(self, fairy: LoopFairy, entry: LoopEntry) -> None:
        """Check in what is at rest, where nobody is to hear of it.

        Args:
            fairy: What was lent.
            entry: Its entry.
        """
        try:
            loan: Any = entry.fairy_ref
            entry.fairy_ref = entry.lent_to = None
            # See `_do_return_conn`.
            fairy._connection_record = fairy.dbapi_connection = None  # type: ignore[assignment]
            fairy._finalizer = RETURNED  # type: ignore[assignment]
            self._loans.discard(loan)
            if entry.bound:
                entry.unbound()
            self._have_rest(entry)
        except BaseException as error:
            entry.explain(error)
            self.give_up(entry)
            raise

    def _have_rest(self, entry: LoopEntry) -> None:
        """Have what is idle rest, or whoever waits for it go on."""
        entry.rested_at = monotonic()
        if self._is_minded:
            maintenance_thread.on_checkin(self, entry)
        # No look at the socket: whoever has it next looks, and until then the loop may
        # have heard of more.
        answer = entry.ticket.release(self._idle, entry, None)
        if self._connecting.bells:
            self._connecting.ring()
        if answer is not None:
            self._let_go(entry, answer)
        elif entry.expires_at < self.next_look:
            maintenance_thread.look_at_resting(self, entry)


def _refuse_coroutine(name: str, listener: Any) -> None:
    """Refuse what would be called and never awaited.

    Raises:
        ArgumentError: It is such a thing.
    """
    if iscoroutinefunction(listener):
        called = getattr(listener, "__qualname__", repr(listener))
        msg = (
            f"{called}, a listener of {name!r}, is a coroutine function, which the "
            "pool cannot await: write a plain function, in which the driver's adapter "
            "has run_async for what is to be awaited"
        )
        raise exc.ArgumentError(msg)


def _collected(loan: Any) -> None:
    """Tell the pool of what was collected while it was out."""
    entry = getattr(loan, "entry", None)
    if entry is not None:  # else its checkout was interrupted
        entry.owner.end_loan(loan)
