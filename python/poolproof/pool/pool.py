"""`Pool`: SQLAlchemy's pool over the slot protocol of the Rust core.

Python keeps the entries and opens and closes connections; the gate says who may hold
which slot. One rule makes an interruption at any bytecode harmless: an idle entry is
owned by `_idle`, a lent one by whoever uses it, and the ticket by its entry. So a frame
that unwinds drops the entry, the entry drops the ticket, and the ticket gives the slot
back.

Long, because it is one idea: a pool of SQLAlchemy's, whose methods are given.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import sys
import time
import weakref
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy.pool
from sqlalchemy import event

from poolproof import _checks, _native
from poolproof._cooperative import CooperativeWaiters, locks_are_replaced
from poolproof._counts import Counts
from poolproof._log import Seldom, fields
from poolproof._sqlalchemy import ConnectionFairy, ConnectionRecord, hears
from poolproof.control.stranded import Stranded
from poolproof.drivers import connect_plan, known
from poolproof.errors import (
    DeadlineExceeded,
    Holder,
    NestedCheckout,
    PoolTimeout,
    TooManyWaiting,
)
from poolproof.faults.guard import install_guard
from poolproof.fork import renewal, sockets
from poolproof.fork.in_flight import Opening, ports
from poolproof.pool import (
    deadlines,
    discard_all,
    evidence,
    idle_hold,
    maintenance,
    maintenance_thread,
    sizing,
    took,
    validation,
)
from poolproof.pool.connector import Connecting, Resting
from poolproof.pool.dialect_hooks import install_hooks
from poolproof.pool.entry import BUSY, DRAINED, Entry, begin_reset
from poolproof.pool.host_budget import Exhausted, HostBudget
from poolproof.pool.name import name_of
from poolproof.pool.nested import Nests
from poolproof.pool.open_shares import OpenShares
from poolproof.pool.settings import (
    KEEP_ALIVE,
    PING_TIMEOUT,
    KeepAlive,
    Settings,
)
from poolproof.pool.stats import PoolStats, name_holders
from poolproof.pool.totals import Totals

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

    from poolproof._native import Share
    from poolproof.drivers.server_params import ControlDsn
    from poolproof.pool.budget_file import Budget

__all__ = ["Pool"]

# Answers of Ticket.release that are not the number of a waiter.
_SURPLUS = -1
_NOBODYS = -2
_HOLDERS_NAMED = 5
_SETTINGS = tuple(field.name for field in dataclasses.fields(Settings))
_CHECKOUT = "checkout"


class Pool(sqlalchemy.pool.Pool):
    """A pool whose connections survive forks, served in order of arrival.

    While callers' time runs out in the queue, the newest are served first: they can
    still make it.

    Takes the place of `QueuePool`, with the same parameters, methods and events:
    `create_engine(url, poolclass=poolproof.Pool)`.
    """

    _is_asyncio = False
    _entry_class = Entry
    _waiters_class = CooperativeWaiters
    # A connection is of use in the thread alone that opened it.
    _lends_by_thread = False
    # Each is looked at before it is lent: what one error says of the others is known.
    sees_sockets = True
    # What SQLAlchemy documents for pools: logging.getLogger("sqlalchemy.pool").
    _sqla_logger_namespace = "sqlalchemy.pool.poolproof.Pool"

    def __init__(
        self,
        creator: Any,
        pool_size: int = 5,
        max_overflow: int = 10,
        timeout: float | None = 30.0,
        use_lifo: bool = False,
        pre_ping: bool | Literal["always"] = False,
        ping_idle_after: float | None = 1.0,
        ping_timeout: float = PING_TIMEOUT,
        checkout_timeout: float | Literal["auto"] | None = "auto",
        reset_timeout: float | None = 5.0,
        hold_timeout: float | None = None,
        hold_warning: float | None = None,
        idle_hold_timeout: float | None = None,
        idle_hold_warning: float | None = None,
        nested_timeout: float | None = None,
        max_waiting: int | None = None,
        keep_alive: KeepAlive | None = KEEP_ALIVE,
        tcp_user_timeout: float | None = None,
        fail_fast_after: int | None = None,
        connect_retry_for: float = 0.0,
        max_lifetime: float | None = 1800.0,
        max_idle: float | None = 600.0,
        min_idle: int = 0,
        end_stranded_backends: bool = False,
        host_budget: Budget | tuple[str, int] | str | None = None,
        control_dsn: ControlDsn | None = None,
        **kw: Any,
    ) -> None:
        """Make an empty pool; nothing is connected yet.

        Args:
            creator: Opens a DBAPI connection; called with the pool entry if it takes an
                argument.
            pool_size: Connections kept when idle, 0 or more; 0 sets no bound at all.
            max_overflow: Connections allowed beyond `pool_size`; a negative number sets
                no bound. They are closed when they come back.
            timeout: How long to wait for a slot, in seconds, 0 or more; 0 does not
                wait, None waits for ever. Connecting is not bounded by it, but by
                `checkout_timeout`.
            use_lifo: Lend the connection that was returned last, not the one that has
                rested longest.
            pre_ping: ``"always"`` asks the server before each checkout. True is taken,
                and means what is done anyway: look at each connection, and ask where a
                look cannot tell. Of another database than PostgreSQL: as SQLAlchemy.
            ping_idle_after: Ask before lending a connection that has rested longer, in
                seconds, 0 or more; None never asks for that reason.
            ping_timeout: The longest wait for the answer, in seconds, more than 0.
            checkout_timeout: The longest checkout as a whole, in seconds: waiting,
                connecting, asking, and the queries of `connect` listeners. ``"auto"``
                is `timeout`, `connect_retry_for` and 5 s more, in which connecting and
                those listeners do not count: each of the two has half a minute, or as
                much; connecting what the driver was told. None sets no bound.
            reset_timeout: The longest rollback, reset or close, in seconds, or None.
            hold_timeout: How long one caller may keep a connection, in seconds; then
                its socket is shut. None sets no bound.
            hold_warning: How long one caller may keep a connection before the stack of
                its checkout is logged, once, in seconds. None never.
            idle_hold_timeout: How long one caller may keep a connection with no
                statement under way, in seconds; then its socket is shut. None sets no
                bound.
            idle_hold_warning: The same, before the stack of its checkout is logged,
                once, in seconds. None never.
            nested_timeout: How long a caller waits that holds a connection and whose
                waiting has made every holder wait, in seconds, 0 or more. None waits
                as long as any other; a warning is logged in either case.
            max_waiting: Callers that may wait for a slot at once, 0 or more: one more
                is refused at once. None sets no bound.
            keep_alive: TCP keep-alives: seconds of silence, seconds between questions,
                questions, in a tuple or a list. None leaves the system's.
            tcp_user_timeout: ``TCP_USER_TIMEOUT`` for every call, in seconds. None
                sets it for the pool's own calls alone.
            fail_fast_after: So many failed attempts to connect in a row make further
                checkouts fail at once until one succeeds; None never.
            connect_retry_for: While the server cannot be reached, how long a checkout
                goes on trying, in seconds from its beginning, 0 or more. 0 tells it at
                once what the last attempt has ended with.
            max_lifetime: How old a connection may become, in seconds, 1 or more, give
                or take a tenth; None sets no bound.
            max_idle: How long a connection may rest unused, in seconds; None sets no
                bound.
            min_idle: Connections kept ready, 0 to `pool_size`.
            end_stranded_backends: Whether to end, on the server, the backend of a
                connection that was discarded as hung or out of step.
            host_budget: A name, and how many connections all processes of this host may
                have together whose pools go by it, 1 or more: ``("app", 40)`` or
                ``"app:40"``. A directory may follow, where the file of it stands;
                otherwise ``POOLPROOF_BUDGET_DIR`` or ``XDG_RUNTIME_DIR`` says where.
                Waiting for one counts as waiting for a slot. None sets no bound.
            control_dsn: How the control plane reaches the server for that, and for
                leases, where the engine's own parameters cannot be known: a URL, or
                `name=value` pairs; or a function that returns it, called before each
                connecting.
            **kw: `recycle`, `echo`, `logging_name`, `reset_on_return`, `events`,
                `dialect`, as for every SQLAlchemy pool.

        Raises:
            ArgumentError: A value of the wrong type or outside its range, or two that
                do not go together.
            TypeError: A parameter that does not exist.
        """
        # How many are kept, and how many there may be beyond; read and set in one step.
        self.bounds = sizing.checked(pool_size, max_overflow)
        self._timeout = _checks.seconds(
            "timeout",
            timeout,
            minimum=0,
            meaning="seconds, 0 (do not wait) or more, or None (wait for ever)",
            none_allowed=True,
        )
        self._lifo = _checks.boolean("use_lifo", use_lifo)
        # What recreate() hands on was checked before, and has the guard's listeners.
        known = kw.pop("_settings", None)
        _checks.check_base({} if known else kw, is_asyncio=self._is_asyncio)
        self.settings = Settings.like(
            known,
            pre_ping=pre_ping,
            ping_idle_after=ping_idle_after,
            ping_timeout=ping_timeout,
            checkout_timeout=checkout_timeout,
            reset_timeout=reset_timeout,
            hold_timeout=hold_timeout,
            hold_warning=hold_warning,
            idle_hold_timeout=idle_hold_timeout,
            idle_hold_warning=idle_hold_warning,
            nested_timeout=nested_timeout,
            max_waiting=max_waiting,
            keep_alive=keep_alive,
            tcp_user_timeout=tcp_user_timeout,
            fail_fast_after=fail_fast_after,
            connect_retry_for=connect_retry_for,
            max_lifetime=max_lifetime,
            max_idle=max_idle,
            min_idle=min_idle,
            end_stranded_backends=end_stranded_backends,
            host_budget=host_budget,
            control_dsn=control_dsn,
        )
        self.settings.check_with(pool_size=pool_size, timeout=self._timeout)
        self.budget = HostBudget.of(self.settings.host_budget, self)
        self.shares, self.drains = OpenShares(), 0
        self._checkout_timeout = self.settings.whole_checkout(self._timeout)
        self._connect_patience = max(
            connect_plan.PATIENCE_S, int(min(1e6, self._checkout_timeout or 0))
        )
        self._bounds_holders = (hold_timeout or idle_hold_timeout) is not None
        self.idle_after = math.inf if ping_idle_after is None else ping_idle_after
        # `unopened`: slots that were lent, and no connection came of it.
        self.discarded, self.unopened = Counts(), Counts()
        self.waits_noted = Seldom(1.0)
        self.totals: Totals = kw.pop("_totals", None) or Totals()
        self.stranded, self.nests = Stranded(self.totals.stranded), Nests()
        # Whether a thread runs several callers, which must be told apart.
        self.has_strands = self._is_asyncio or locks_are_replaced()
        # When the keeper looks at this pool next, and whether it is to hear of each
        # checkout and check-in.
        self.next_look = maintenance_thread.first_look(self.settings)
        self._is_minded = (
            min_idle > 0
            or hold_warning is not None
            or self.settings.minds_idle_holds
            or (self.has_strands and not self._is_asyncio)
        )
        # Since it was made or disposed of.
        self.is_used = self.is_replaced = False
        self.warned_of_state = self.warned_of_pooler = False
        self.own_name: str | None = None
        # Where parameters are from that nobody has written in the code, by their names
        # for create_engine.
        self.origins: dict[str, str] = {}
        self._discards = kw.get("reset_on_return") == discard_all.NAME
        if self._discards:
            kw["reset_on_return"] = "rollback"
        super().__init__(creator, **kw)
        if self._discards:
            discard_all.begin(self)
        if "_dialect" not in self.__dict__:
            # SQLAlchemy's stand-in is one for all pools; install_hooks changes it.
            self._dialect = type(self._dialect)()
        if known is None:
            _checks.refuse_strays(self)
            install_guard(self._dialect, self.sees_sockets, self)
        self._choose_ping()
        self.bounds_checkins = self._bounds_checkouts = False
        self._see_listeners()
        self._generation, self._opened_by = _native.generation(), os.getpid()
        self._idle: dict[int, Entry] = {}
        self._entries: weakref.WeakSet[Entry] = weakref.WeakSet()
        self._detached: weakref.WeakSet[ConnectionFairy] = weakref.WeakSet()
        self._waiters = self._waiters_class()
        self._gate = self._make_gate()
        self._connecting = Connecting(
            fail_fast_after, connect_retry_for, self._waiters.make_wakeup
        )
        if end_stranded_backends:
            self._reach_server()
        renewal.quieten(self.logger)
        renewal.enroll(self)

    def _make_gate(self) -> _native.Gate:
        most = self.settings.max_waiting
        return _native.Gate(
            **sizing.limits(self.bounds),
            lifo=self._lifo,
            waiting=None if most is None else min(most, sys.maxsize),
            timings=self.totals.timings,
            by_thread=self._lends_by_thread,
        )

    def _reach_server(self) -> None:
        """See that the control plane knows how to reach the server."""
        self.stranded.reach(self, self._dialect, self.settings.control_dsn)

    def _ports(self) -> frozenset[int]:
        return ports(self, self._dialect, self.settings.control_dsn)

    def _choose_ping(self) -> None:
        """Leave SQLAlchemy's ping to databases that the pool has no question for."""
        asks = self.is_of_postgresql()
        self._pre_ping = bool(self.settings.pre_ping) and not asks

    def is_of_postgresql(self) -> bool:
        """Whether the pool's connections are of PostgreSQL, as far as is known yet."""
        return getattr(self._dialect, "name", None) == "postgresql"

    def _see_listeners(self) -> None:
        """See whose questions are to be bounded.

        To ask for listeners at each checkout would cost a tenth of it. The first one
        that is put on a pool replaces a collection, which is seen at once; one that is
        put on the class is seen at the next connecting.
        """
        self.listeners = listeners = self.dispatch
        resets = listeners.reset
        self._seen_checkin = listeners.checkin
        self._seen_checkout = listeners.checkout
        self._seen_reset = resets
        # Whoever has listened may listen again.
        self.bounds_checkins |= bool(listeners.checkin)
        self._bounds_checkouts |= bool(listeners.checkout)
        # What is there as long as no listener is: then less need be asked.
        is_asked = self._bounds_checkouts or self._pre_ping
        self._quiet_checkout = None if is_asked else listeners.checkout
        self.quiet_checkin = None if self.bounds_checkins else listeners.checkin
        self._hears_checkouts = hears(listeners.checkout)
        self.hears_checkins = hears(listeners.checkin)
        commits = self._reset_on_return is sqlalchemy.pool.reset_commit
        if (commits or resets) and begin_reset not in list(resets):
            event.listen(self, "reset", begin_reset, insert=True)
            self._seen_reset = listeners.reset

    def see_new_listeners(self) -> None:
        """See whose questions are to be bounded, where a listener has come."""
        listeners = self.listeners
        if (
            listeners.reset is not self._seen_reset
            or listeners.checkin is not self._seen_checkin
            or listeners.checkout is not self._seen_checkout
        ):
            self._see_listeners()

    # --- checkout -------------------------------------------------------------------

    def connect(self) -> PoolProxiedConnection:
        """Check a connection out; its `close()` checks it in.

        Returns:
            The pooled connection.

        Raises:
            PoolTimeout: No slot became free within `timeout`.
        """
        listeners = self.listeners
        if (
            listeners.checkout is self._quiet_checkout
            and listeners.reset is self._seen_reset
            and not self._hears_checkouts
        ):
            # All that `ConnectionFairy._checkout` does then.
            fairy = ConnectionRecord.checkout(self)
            fairy._counter = 1
        else:
            self.see_new_listeners()
            fairy = ConnectionFairy._checkout(self)
        entry: Any = fairy._connection_record
        if entry is not None:
            entry.lent_to = entry.fairy_ref
            if entry.lent_to is None:  # a listener of the checkout forked: the child
                return self.connect()
            if entry.bound:
                self._end_checkout(entry, fairy)
            if self._bounds_holders or deadlines.ever_used:
                entry.bound_holding()
            if self._is_minded:
                maintenance_thread.on_checkout(self, entry)
        elif fairy.dbapi_connection is not None:
            self._detached.add(fairy)  # by a listener of the checkout
        return fairy

    def _do_get(self) -> ConnectionPoolEntry:  # noqa: C901 - a call would cost more
        began = now = monotonic()
        due = None if self._checkout_timeout is None else now + self._checkout_timeout
        if deadlines.ever_used:
            due = self._due(now, due)
        try:
            entry: Entry = self._gate.lend(self._idle)
            if type(entry) is not Entry:  # a ticket, or nothing
                entry = self._lend_otherwise(entry, began, due)
                if not entry.rested_at:
                    return entry
                now = monotonic()
        except _native.Forked:
            renewal.renew(self)
            return self._do_get()
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
        return entry

    def _lend_otherwise(self, ticket: Any, began: float, due: float | None) -> Entry:
        """Wait for a slot where there is none; connect for an empty one.

        Args:
            ticket: Of an empty slot; or None.
            began: When the checkout began, on the monotonic clock.
            due: When it must have ended.

        Returns:
            An entry with its ticket: a new one, or one that has a `rested_at`.
        """
        entry: Entry | None = None
        if ticket is None:
            ticket = self._wait(began, due)
            entry = ticket.take(self._idle)
        if entry is None:
            return self._open_for_caller(ticket, began, due)
        entry.ticket = ticket
        return entry

    def _due(self, now: float, due: float | None) -> float | None:
        """Say when a checkout that begins now must have ended, inside a block or not.

        Raises:
            PoolTimeout: It must have ended before.
        """
        block = deadlines.current()
        if block is None:
            return due
        if block.due <= now:
            passed = DeadlineExceeded("deadline", block.seconds)
            raise self.timed_out(0.0, str(passed), spent_on="deadline") from passed
        return block.due if due is None else min(due, block.due)

    def _open_for_caller(
        self, ticket: _native.Ticket, began: float, due: float | None
    ) -> Entry:
        """Connect for an empty slot; where that fails it is no checkout."""
        try:
            return self._open_entry(ticket, began, due, may_rest=True)
        except _native.Forked:
            raise
        except BaseException:
            self.unopened.add(_CHECKOUT)
            raise

    def _open_entry(
        self,
        ticket: _native.Ticket,
        began: float,
        due: float | None,
        *,
        may_rest: bool = False,
        is_patient: bool = True,
    ) -> Entry:
        """Connect for an empty slot.

        Args:
            ticket: The slot's; it is used up where another entry is returned.
            began: When the checkout began, on the monotonic clock.
            due: When it must have ended.
            may_rest: Whether a connection that has come to rest meanwhile will do,
                where connecting fails.
            is_patient: Whether to wait for a share of the host's budget.

        Returns:
            An entry with its ticket: a new one, or the other, which has a `rested_at`.

        Raises:
            Forked: The process was forked meanwhile (by another greenlet), and this is
                the child: the slot is one of the parent's pool.
        """
        entry = self._entry_class(self, began, due)
        entry.may_rest, entry.is_patient = may_rest, is_patient
        try:
            while entry.dbapi_connection is None:
                try:
                    entry.get_connection()
                except Exception as error:
                    found = self._find_resting() if may_rest else None
                    if found is not None:
                        self._waiters.wake(ticket.vacate())
                        self.unopened.add(_CHECKOUT)
                        return found
                    if not isinstance(error, Resting):
                        raise
        except BaseException as error:
            if ticket.used and isinstance(error, Exception):
                raise _native.Forked from error
            self._waiters.wake(ticket.vacate())
            raise
        if ticket.used:
            entry.close()
            raise _native.Forked
        entry.may_rest, entry.is_patient = False, True
        entry.ticket = ticket
        ticket.opened()
        return entry

    def has_idle(self) -> bool:
        """Tell whether a connection rests; an entry without one does not count."""
        return any(
            entry.dbapi_connection is not None for entry in list(self._idle.values())
        )

    def _find_resting(self) -> Entry | None:
        """Take a connection that rests, for a caller who could not open one.

        Returns:
            Its entry, with the ticket; None when there is none.

        Raises:
            Forked: The process was forked meanwhile, and this is the child.
        """
        while self.has_idle():
            ticket = self._gate.acquire()
            if ticket is None:
                return None
            entry: Entry | None = ticket.take(self._idle)
            if entry is not None and entry.dbapi_connection is not None:
                entry.ticket = ticket
                return entry
            self._waiters.wake(ticket.vacate())
            self.unopened.add(_CHECKOUT)
        return None

    def strand(self) -> int:
        """Number the caller, where its thread runs several."""
        return self._waiters.strand()

    def caller(self) -> tuple[str, list[tuple[CodeType, int]]]:
        """Name the task that calls, and say where it does.

        Returns:
            Its name, and codes with the place in each, the innermost first; nothing of
            a thread, whose own frames say it.
        """
        return "", []

    def open_ahead(self, work: Callable[[], float]) -> float:
        """Have the keeper open a connection ahead of need.

        Args:
            work: Opens it; returns when there is more to do, on the monotonic clock.

        Returns:
            When to look again.
        """
        return work()

    def _end_checkout(self, entry: Entry, fairy: PoolProxiedConnection) -> None:
        """End the bound of what listeners have asked of a connection.

        Raises:
            PoolTimeout: It has passed, and no listener said so.
        """
        if entry.socket is not None and entry.socket.disarm(_native.CALL):
            passed = entry.exceeded()
            waited = monotonic() - entry.began
            error = self.timed_out(waited, str(passed), spent_on="deadline")
            fairy.invalidate(error)
            raise error from passed

    def entries(self) -> list[Entry]:
        """List the entries, at rest or not, beside threads that add some."""
        while True:
            try:
                return list(self._entries)
            except RuntimeError:  # one was added meanwhile
                continue

    def remember(self, entry: Entry) -> None:
        """Have an entry made quiet in children, for as long as it lives.

        Args:
            entry: A new entry of this pool, before it connects.
        """
        self._entries.add(entry)

    def _discard(self, entry: Entry, finding: str) -> None:
        """End an idle connection that is not at rest; the entry connects anew.

        Nothing is sent: a peer that is out of step would take it for something else.
        One that is only too old is at rest, and ended as the driver does.
        """
        if finding == "lifetime":
            try:
                entry.retire(finding)
            except BaseException:  # of a listener
                self.give_up(entry)
                raise
            return
        self.logger.info(
            "Connection %r is %s; replacing it",
            entry.dbapi_connection,
            finding,
            extra=entry.fields(reason=finding),
        )
        validation.report(entry, finding)
        entry.reason = finding
        evidence.seen(entry)
        entry.sever()
        try:
            entry.invalidate()
        except BaseException:  # of a listener
            self.give_up(entry)
            raise

    def _wait(self, started: float, due: float | None) -> _native.Ticket:
        limit = self._timeout
        if due is not None:
            left = max(0.0, due - started)
            limit = left if limit is None else min(limit, left)
        ended: _native.Ticket | _native.Nested | _native.QueueFull | None
        if limit == 0:
            ended = None
        elif self._is_asyncio or locks_are_replaced():
            ended = self._waiters.wait_and_tell(
                self._gate, limit, lambda place: self.nests.told(self, place, limit)
            )
        else:
            came = self._gate.wait(limit, tells=True)
            if isinstance(came, _native.Waiter):
                came = self.nests.sleep(self, came, limit)
            ended = came
        if isinstance(ended, _native.QueueFull):
            raise self._too_many_wait()
        waited = monotonic() - started
        evidence.waited(self, waited, served=isinstance(ended, _native.Ticket))
        if took.listeners:
            took.tell(self, "wait", waited)
        if isinstance(ended, _native.Ticket):
            return ended
        block = deadlines.current() if deadlines.ever_used else None
        by_block = block is not None and block.due <= monotonic()
        raise self.timed_out(
            waited,
            nested=ended,
            spent_on="deadline" if by_block else "slot",
        )

    def _too_many_wait(self) -> TooManyWaiting:
        """Make the error of a caller who may not wait."""
        self.totals.timeouts.add("queue_full")
        facts = self._facts_of_timeout(0.0, "")
        return TooManyWaiting(*facts, self.settings.max_waiting or 0)

    def mind(self) -> None:
        """Have the keeper hear of each checkout and check-in from now on."""
        self._is_minded = True

    def timed_out(
        self,
        waited: float,
        reason: str = "",
        nested: _native.Nested | None = None,
        *,
        spent_on: str = "slot",
    ) -> PoolTimeout:
        """Make the error of a checkout whose time is over.

        Args:
            waited: For how long it has waited, in seconds.
            reason: What has ended it, if it was not `timeout`.
            nested: What is known of callers that wait for what they hold.
            spent_on: What it is counted under (`Totals.timeouts`).
        """
        self.totals.timeouts.add(spent_on)
        facts = self._facts_of_timeout(waited, reason)
        if nested is None:
            return PoolTimeout(*facts)
        return NestedCheckout(*facts, nested.callers, nested.held, nested.most)

    def _facts_of_timeout(
        self, waited: float, reason: str
    ) -> tuple[str, int, int, int, int, float, tuple[Holder, ...], str]:
        """Gather what each `PoolTimeout` says."""
        holders = self._name_holders(_HOLDERS_NAMED)
        # Not stats(), which counts all there is: hundreds may be refused at once.
        now = self._gate.snapshot()
        return (
            self.name(),
            *self.bounds,
            now.lent,
            now.waiting,
            waited,
            holders,
            reason,
        )

    # --- check-in -------------------------------------------------------------------

    def _do_return_conn(self, record: Any) -> None:  # noqa: C901 - a call would cost more
        entry: Entry = record
        connection: Any = entry.dbapi_connection
        fairy = entry.lent_to() if entry.lent_to is not None else None
        if fairy is not None and fairy._connection_record is entry:
            if connection is not None:
                # The next holder's before long. SQLAlchemy takes it from the fairy when
                # all is done, and an interruption may come between.
                fairy._connection_record = None
                fairy.dbapi_connection = None  # type: ignore[assignment]
            elif fairy.dbapi_connection is not None:
                self._detached.add(fairy)
        if entry.bound:
            entry.unbound()
        socket = None
        if connection is not None:
            driver = entry.driver
            if driver.status(connection) != driver.idle or (
                driver.locks
                and (connection.lock.locked() or driver.is_piped(connection))
            ):
                self._discard(entry, BUSY)
            else:
                socket = entry.socket
        elif self._connecting.failures:
            self._leave_empty(entry)
            return
        # Of an empty one as well: the keeper takes it away as late as the others.
        entry.rested_at = monotonic()
        if self._is_minded:
            maintenance_thread.on_checkin(self, entry)
        # It peeks at the socket first.
        answer = entry.ticket.release(self._idle, entry, socket)
        if self._connecting.bells:
            self._connecting.ring()
        if answer is not None:
            self._let_go(entry, answer)
        elif entry.expires_at < self.next_look:
            maintenance_thread.look_at_resting(self, entry)

    def _leave_empty(self, entry: Entry) -> None:
        """Give back a slot whose connection could not be replaced.

        As an empty slot: who looks for a connection at rest must not find the entry.
        """
        if self._is_minded:
            maintenance_thread.on_checkin(self, entry)
        self._waiters.wake(entry.ticket.vacate())
        if entry.expires_at < self.next_look:
            maintenance_thread.look_at(self)

    def _let_go(self, entry: Entry, answer: int | str) -> None:
        """Do what the gate has answered about an entry that does not rest."""
        if isinstance(answer, str):
            self._discard(entry, answer)
            self._do_return_conn(entry)
        elif answer == _SURPLUS:
            try:
                entry.close()
            finally:
                self._waiters.wake(entry.ticket.vacate())
        elif answer == _NOBODYS:
            self._close_nobodys(entry)
        else:
            self._waiters.wake(answer)

    def give_up(self, entry: Entry) -> None:
        """Take back the slot of an entry whose check-in failed half-way.

        Args:
            entry: An entry of this pool.
        """
        if not entry.ticket.used:
            try:
                entry.close()
            finally:
                self._waiters.wake(entry.ticket.vacate())

    def _close_nobodys(self, entry: Entry) -> None:
        """Close what belongs to a disposed generation, but no leftover of a fork."""
        if self._generation != _native.generation():
            renewal.renew(self)
        entry.close()

    # --- connections ----------------------------------------------------------------

    def _should_wrap_creator(self, creator: Any) -> Any:
        create = super()._should_wrap_creator(creator)

        def watched(entry: Entry) -> Any:
            opening: Any = contextlib.nullcontext()
            if self.has_strands or locks_are_replaced():
                opening = Opening(self._ports)
            try:
                with opening:
                    return create(entry)
            except UnicodeError as error:
                kind = type(error).__name__
            # Out here it is no other error's context: that one holds the password.
            raise connect_plan.unreadable(kind, self._dialect)

        def open_and_watch(entry: Entry) -> DBAPIConnection:
            return self._open(watched, entry)

        return open_and_watch

    def _open(self, create: Any, entry: Entry) -> DBAPIConnection:
        self._prepare()
        while True:
            before, drains = _native.generation(), self.drains
            try:
                share = self._share_for(entry)
                with self._bound_of(entry) as bound:
                    connection = self._connect(create, entry, share)
            except _native.Forked:
                renewal.renew(self)
                continue
            if _native.generation() == before:
                if share is not None:
                    self.shares.keep(connection, share)
                    maintenance_thread.look_at_budget(self)
                if bound.patience is not None:
                    self._leave_time_to_begin(entry, bound)
                self._take_over(connection, entry, bound.user_timeout_lent)
                if self.drains != drains:  # it had begun before
                    entry.expires_at = DRAINED
                return connection
            # A greenlet that was connecting at the fork goes on in both processes: this
            # is the child, and the session is the parent's.
            number = sockets.descriptor(connection)
            if number is not None:
                _native.sever(number)
            renewal.leak(connection)

    def _prepare(self) -> None:
        """See that all stands around the dialect that connections are opened with."""
        install_hooks(self._dialect)
        if self.settings.minds_idle_holds:
            idle_hold.install(self._dialect, self._entry_class)
        driver = known.by_name(getattr(self._dialect, "driver", ""))
        if driver is not None:
            connect_plan.bound_connects(self._dialect, driver.connect_plan)
        # create_engine(pool=…) sets it late.
        install_guard(self._dialect, self.sees_sockets)
        self._choose_ping()
        self._see_listeners()

    def _connect(
        self, create: Any, entry: Entry, share: Share | None
    ) -> DBAPIConnection:
        """Connect; where that fails, give the share back: the error may keep it."""
        try:
            return self._connecting.open(create, entry)
        except BaseException as error:
            if share is not None:
                share.give_back(clear=isinstance(error, Exception))
            raise

    def _share_for(self, entry: Entry) -> Share | None:
        """Wait for a share of the host's budget, for a connection that is to be opened.

        Returns:
            The share; None where the pool has no budget.

        Raises:
            PoolTimeout: The time for a slot was over before.
            Resting: A connection of the pool came to rest meanwhile, and the entry can
                do without one of its own.
            Forked: The process was forked meanwhile, and this is the child.
        """
        budget = self.budget
        if budget is None:
            return None
        now = monotonic()
        until = None if self._timeout is None else entry.began + self._timeout
        if entry.due is not None:
            until = entry.due if until is None else min(until, entry.due)
        if not entry.is_patient:
            until = now
        try:
            has_come = self.has_idle if entry.may_rest else None
            share = budget.take(until, has_come, self._pause)
        except Exhausted:
            waited = monotonic() - entry.began
            reason = budget.describe()
            raise self.timed_out(waited, reason, spent_on="host_budget") from None
        if share is None:
            raise Resting
        return share

    def _pause(self, seconds: float) -> None:
        """Have the caller wait a moment for a share of the host's budget."""
        time.sleep(seconds)

    def _bound_of(self, entry: Entry) -> connect_plan.Bound:
        """Say how long an entry's connecting may take."""
        if self.settings.checkout_timeout != "auto":
            return connect_plan.Bound(entry.due)
        block = deadlines.current() if deadlines.ever_used else None
        return connect_plan.Bound(
            None if block is None else block.due,
            self._connect_patience if entry.due is not None else None,
        )

    def _leave_time_to_begin(self, entry: Entry, bound: connect_plan.Bound) -> None:
        """Have a checkout's default bound not count what connecting has taken.

        Nor what the listeners of `connect` take, for as long as connecting may: they
        make the session what it is to be, and a server that wakes is slow for them too.
        """
        due = monotonic() + self._connect_patience
        if bound.due is not None:
            due = min(due, bound.due)
        if entry.due is not None:
            entry.due = max(entry.due, due)

    def _take_over(
        self, connection: DBAPIConnection, entry: Entry, user_timeout_lent: bool
    ) -> None:
        """Learn what a new connection is, and bound the queries of its listeners."""
        entry.driver = driver = known.of(connection, self._dialect)
        entry.suspect = entry.is_always_suspect = (
            driver.must_ask or self.settings.pre_ping == "always"
        )
        entry.block = None
        entry.socket = None
        entry.expires_at = maintenance.expiry(self.settings)
        try:
            entry.socket = sockets.watch(
                connection,
                driver,
                keep_alive=self.settings.keep_alive,
                tcp_user_timeout=self.settings.tcp_user_timeout,
                user_timeout_lent=user_timeout_lent,
            )
        except OSError as error:
            with self.shares.closing(connection):
                super()._close_connection(connection)
            raise connect_plan.unwatched(error, self._dialect) from error
        entry.backend = None
        if self.settings.end_stranded_backends:
            entry.backend = self.stranded.meet(
                connection, entry.socket, self._reach_server
            )
        entry.is_new = self._discards
        entry.bound_checkout()

    def read_session(self, entry: Entry) -> None:
        """Read what is to be set again after each ``DISCARD ALL``.

        Args:
            entry: Of a new connection, after the listeners of `connect`.

        Raises:
            Exception: Whatever the driver raises.
        """
        discard_all.remember(entry)

    def _close_connection(
        self, connection: DBAPIConnection, *, terminate: bool = False
    ) -> None:
        if self.budget is None:
            self._end_connection(connection, terminate=terminate)
            return
        with self.shares.closing(connection):
            self._end_connection(connection, terminate=terminate)

    def _end_connection(
        self, connection: DBAPIConnection, *, terminate: bool = False
    ) -> None:
        if self._generation != _native.generation():
            renewal.renew(self)
        if renewal.is_inherited(connection):
            return
        socket = sockets.find(connection)
        if socket is None:
            super()._close_connection(connection, terminate=terminate)
        elif sockets.is_foreign(connection):
            self._forget_foreign(connection)
        elif not socket.intact:
            self._close_severed(connection)
        else:
            limit = self.settings.reset_timeout
            if limit is not None:
                socket.arm(_native.CALL, limit)
            super()._close_connection(connection, terminate=terminate)
        sockets.unwatch(connection)

    def _forget_foreign(self, connection: DBAPIConnection) -> None:
        """End a connection whose driver would write to, and close, another's number.

        The driver's object stays for good: its destructor would do the same.
        """
        driver = known.of(connection, self._dialect)
        validation.report_foreign(connection, driver, self)
        _native.forget(connection)
        sockets.end_session(connection)

    def _close_severed(self, connection: DBAPIConnection) -> None:
        """Close what has no socket any more; the driver's goodbye is meant to fail."""
        unsent = known.of(connection, self._dialect).unsent(connection)
        try:
            self._dialect.do_terminate(connection)
        except Exception as error:  # noqa: BLE001 - the driver's own, of any class
            self.logger.debug("Closing severed connection %r: %r", connection, error)
        finally:
            if unsent is not None:
                with contextlib.suppress(OSError, ValueError):  # it cannot be sent
                    unsent.close()

    def renew(self) -> None:
        """Start afresh in a child: nothing lent, nothing idle, nobody waiting.

        Idempotent. An interruption leaves the pool as stale as it was, and its next use
        begins this again.
        """
        if self._generation == _native.generation():
            return
        for entry in list(self._entries):
            fairy = entry.fairy_ref() if entry.fairy_ref is not None else None
            if fairy is not None:
                renewal.ForkedFairy.take_over(fairy, self._opened_by)
            renewal.leak(entry.dbapi_connection)
            entry.dbapi_connection = None
            entry.fairy_ref = None
            entry.finalize_callback.clear()
        for fairy in list(self._detached):
            renewal.ForkedFairy.take_over(fairy, self._opened_by)
        renewal.renew_listeners(self)
        if self._generation == _native.generation():
            return  # a destructor has used the pool meanwhile
        self._entries = weakref.WeakSet()
        self._detached = weakref.WeakSet()
        self._idle = {}
        self._opened_by = os.getpid()
        self.next_look = maintenance_thread.first_look(self.settings)
        self.is_used = False
        self.shares = OpenShares()
        self.discarded = Counts()
        self.unopened = Counts()
        self.totals = Totals()
        self.stranded = Stranded(self.totals.stranded)
        self._gate = self._make_gate()
        self._connecting = self._connecting.renewed()
        self._generation = _native.generation()
        self._waiters.wake_all()

    # --- the rest of QueuePool's methods ----------------------------------------------

    def dispose(self) -> None:
        """Close the idle connections; those that are out are closed when they return.

        The pool remains usable. In a child, connections of the parent are left alone.
        """
        self.is_used = False
        try:
            idle, waiters = self._gate.expire_all(self._idle)
        except _native.Forked:
            renewal.renew(self)
            return self.dispose()
        for number in waiters:
            self._waiters.wake(number)
        for entry in idle:
            entry.close()
        maintenance_thread.let_go(self)
        if self._should_log_info():  # what it would say takes longer than all the rest
            self.logger.info(
                "Pool disposed. %s", self.status(), extra=fields(pool=self.name())
            )
        return None

    def recreate(self) -> Pool:
        """Make an empty pool of the same class with the same parameters and listeners.

        Returns:
            The new pool.
        """
        self.logger.info("Pool recreating")
        successor = self.__class__(
            self._creator,
            **self.given(),
            _dispatch=self.dispatch,
            dialect=self._dialect,
            _settings=self.settings,
            _totals=self.totals,
        )
        successor.own_name = self.own_name
        self.is_replaced = True
        successor.origins = self.origins
        return successor

    def resize(self, size: int, max_overflow: int | None = None) -> None:
        """Have other bounds from now on, as if the pool had been made with them.

        Takes nothing from anybody. What is out beyond the new bounds is closed when it
        comes back, and until then nobody gets one more; what rests beyond them is
        closed at once. Callers who wait get what there is more.

        Args:
            size: `pool_size`, 0 or more; 0 sets no bound at all.
            max_overflow: As for a new pool; None leaves it as it is.

        Raises:
            ArgumentError: A value of the wrong type or outside its range, or a size
                below `min_idle`; nothing has changed.
        """
        sizing.resize(self, size, max_overflow)

    def drain(self) -> int:
        """Replace every connection by a new one, without an outage.

        Those at rest are replaced here, one after another, the new one first where the
        bounds have room for both. Those that are out, or that begin to be opened before
        this ends, are closed when they come back, and replaced at need.

        Returns:
            How many were replaced here; those of an `AsyncPool` are closed, and opened
            at need.

        Raises:
            PoolTimeout: No new one could be opened in time.
            Exception: What connecting ended with. Those that were not replaced are lent
                as before; the one that made room for the new one is gone.
        """
        return sizing.drain(self)

    def warm(self, count: int) -> int:
        """Open connections ahead of need, here and now, until so many rest.

        Fewer, where the bounds have no room for them beside those that are out, or
        where somebody waits.

        Args:
            count: Connections, 0 to `pool_size`.

        Returns:
            How many rest now.

        Raises:
            ArgumentError: A number of the wrong type or outside its range.
            InvalidRequestError: It is an `AsyncPool`.
            PoolTimeout: One could not be opened in time.
            Exception: What connecting ended with; those that were opened stay.
        """
        return sizing.warm(self, count)

    def given(self) -> dict[str, Any]:
        """Return the parameters that this pool was made with, its defaults included.

        Returns:
            Values by the names of this class; listeners and the dialect are not among
            them.
        """
        return {
            "pool_size": self.bounds[0],
            "max_overflow": self.bounds[1],
            "timeout": self._timeout,
            "use_lifo": self._lifo,
            "recycle": self._recycle,
            "echo": self.echo,
            "logging_name": self._orig_logging_name,
            "reset_on_return": (
                discard_all.NAME if self._discards else self._reset_on_return
            ),
            # Not asdict: that copies each value, for a tenth of a dispose().
            **{name: getattr(self.settings, name) for name in _SETTINGS},
        }

    def stats(self) -> PoolStats:
        """Count what this pool has in this process.

        Returns:
            The numbers at one instant.
        """
        try:
            now = self._gate.snapshot()
        except _native.Forked:
            renewal.renew(self)
            return self.stats()
        size, max_overflow = self.bounds
        lag = self.totals.timings.lag()
        return PoolStats(
            size=size,
            max_overflow=max_overflow,
            idle=now.idle,
            in_use=now.lent,
            maintenance=now.maintenance,
            waiting=now.waiting,
            newest_first=now.newest_first,
            checkouts_total=now.lent_total - self.unopened.copy().get(_CHECKOUT, 0),
            waited_total=now.waited_total,
            discarded=self.discarded.copy(),
            stranded=self.stranded.counts.copy(),
            connect_failures=self._connecting.failures,
            breaker_open=self._connecting.breaker_open,
            generation=_native.generation(),
            oldest_wait_s=now.oldest_wait_s,
            loop_lag_s=None if lag is None else lag.max_s,
        )

    def holders(self) -> tuple[Holder, ...]:
        """Say who holds connections.

        Returns:
            One `Holder` for each slot that is lent, longest first.
        """
        return self._name_holders(None)

    def holders_by_slot(self) -> dict[int, Holder]:
        """Say who holds which slot.

        Returns:
            By the slot's number, longest first.
        """
        try:
            held = self._gate.holders()
        except _native.Forked:
            renewal.renew(self)
            return self.holders_by_slot()
        slots = [slot for slot, _thread, _held_s in held]
        return dict(zip(slots, name_holders(held, self._tasks()), strict=True))

    def _tasks(self) -> dict[int, str]:
        """Name the tasks that hold slots."""
        return {}

    def _name_holders(self, most: int | None) -> tuple[Holder, ...]:
        """Name those who have held longest, at most so many."""
        try:
            held = self._gate.holders()
        except _native.Forked:
            renewal.renew(self)
            return self._name_holders(most)
        return name_holders(held[:most], self._tasks())

    def status(self) -> str:
        """Describe the state in one line, in QueuePool's words."""
        return (
            f"Pool size: {self.size()}  Connections in pool: {self.checkedin()} "
            f"Current Overflow: {self.overflow()} Current Checked out "
            f"connections: {self.checkedout()}"
        )

    @property
    def _max_overflow(self) -> int:
        """What others read of a `QueuePool`."""
        return self.bounds[1]

    def size(self) -> int:
        """Connections kept when idle (`pool_size`)."""
        return self.bounds[0]

    def timeout(self) -> float | None:
        """How long a caller waits for a slot, in seconds; None is for ever."""
        return self._timeout

    def checkedin(self) -> int:
        """Connections at rest in the pool."""
        return self.stats().idle

    def checkedout(self) -> int:
        """Connections that are out."""
        return self.stats().in_use

    def overflow(self) -> int:
        """Connections beyond `pool_size`; negative while there are fewer."""
        stats = self.stats()
        used = stats.idle + stats.in_use + stats.maintenance
        size = self.size()
        return used - size if size else 0

    def name(self) -> str:
        """What this pool is called in messages: `pool_name.name_of` chooses it, once.

        A pool that takes this one's place (`Engine.dispose`) keeps the name.
        """
        if self.own_name is None:
            others = (one.own_name for one in renewal.pools() if one is not self)
            self.own_name = name_of(self, filter(None, others))
        return self.own_name
