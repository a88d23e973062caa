"""`Pool`: SQLAlchemy's pool over the slot protocol of the Rust core.

Python keeps the entries and opens and closes connections; the gate says who may hold
which slot. One rule makes an interruption at any bytecode harmless: an idle entry is
owned by `_idle`, a lent one by whoever uses it, and the ticket by its entry. So a frame
that unwinds drops the entry, the entry drops the ticket, and the ticket gives the slot
back.

Long, because it is one idea: a pool of SQLAlchemy's, whose methods are given.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import sqlalchemy.pool

from poolproof import _native, fork, parameters, sockets
from poolproof._sqlalchemy import ConnectionFairy
from poolproof.entry import Entry
from poolproof.errors import PoolTimeout
from poolproof.guard import protect as guard_dialect
from poolproof.sleepers import Sleepers, locks_are_replaced
from poolproof.stats import Holder, PoolStats

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

__all__ = ["Pool"]

# Answers of Ticket.release that are not the number of a waiter.
_SURPLUS = -1
_NOBODYS = -2
_HOLDERS_NAMED = 5


class Pool(sqlalchemy.pool.Pool):
    """A pool whose connections survive forks, served in order of arrival.

    Takes the place of `QueuePool`, with the same parameters, methods and events:
    `create_engine(url, poolclass=poolproof.Pool)`.
    """

    _is_asyncio = False
    # What SQLAlchemy documents for pools: logging.getLogger("sqlalchemy.pool").
    _sqla_logger_namespace = "sqlalchemy.pool.poolproof.Pool"

    def __init__(
        self,
        creator: Any,
        pool_size: int = 5,
        max_overflow: int = 10,
        timeout: float | None = 30.0,
        use_lifo: bool = False,
        **kw: Any,
    ) -> None:
        """Make an empty pool; nothing is connected yet.

        Args:
            creator: Opens a DBAPI connection; called with the pool entry if it takes an
                argument.
            pool_size: Connections kept when idle, 0 or more; 0 sets no bound at all.
            max_overflow: Connections allowed beyond `pool_size`, -1 or more; -1 sets no
                bound. They are closed when they come back.
            timeout: How long to wait for a slot, in seconds, 0 or more; 0 does not
                wait, None waits for ever. Connecting is not bounded by it.
            use_lifo: Lend the connection that was returned last, not the one that has
                rested longest.
            **kw: `recycle`, `echo`, `logging_name`, `reset_on_return`, `events`,
                `dialect`, `pre_ping`, as for every SQLAlchemy pool.

        Raises:
            ArgumentError: A value of the wrong type or outside its range.
            TypeError: A parameter that does not exist.
        """
        self._size = parameters.integer(
            "pool_size",
            pool_size,
            minimum=0,
            meaning="a whole number, 0 (no bound) or more",
        )
        max_overflow = parameters.integer(
            "max_overflow",
            max_overflow,
            minimum=-1,
            meaning="a whole number, -1 (no bound) or more",
        )
        self._max_overflow = -1 if self._size == 0 else max_overflow
        self._timeout = parameters.seconds(
            "timeout",
            timeout,
            minimum=0,
            meaning="seconds, 0 (do not wait) or more, or None (wait for ever)",
            none_allowed=True,
        )
        self._lifo = parameters.boolean("use_lifo", use_lifo)
        parameters.check_base(kw)
        super().__init__(creator, **kw)
        if "_dialect" not in self.__dict__:
            # SQLAlchemy's stand-in is one for all pools; fork.protect changes it.
            self._dialect = type(self._dialect)()
        guard_dialect(self._dialect, own_pool=True, pool=self)
        self._generation = _native.generation()
        self._opened_by = os.getpid()
        self._idle: dict[int, Entry] = {}
        self._entries: weakref.WeakSet[Entry] = weakref.WeakSet()
        self._detached: weakref.WeakSet[ConnectionFairy] = weakref.WeakSet()
        self._sleepers = Sleepers()
        self._gate = self._make_gate()
        fork.enroll(self)

    def _make_gate(self) -> _native.Gate:
        unbounded = self._max_overflow == -1
        total = None if unbounded else min(self._size + self._max_overflow, sys.maxsize)
        return _native.Gate(
            kept=min(self._size, sys.maxsize) or None,
            total=total,
            lifo=self._lifo,
        )

    # --- checkout -------------------------------------------------------------------

    def connect(self) -> PoolProxiedConnection:
        """Check a connection out; its `close()` checks it in.

        Returns:
            The pooled connection.

        Raises:
            PoolTimeout: No slot became free within `timeout`.
        """
        fairy = ConnectionFairy._checkout(self)
        entry: Any = fairy._connection_record
        if entry is not None:
            entry.lent_to = entry.fairy_ref
            if entry.lent_to is None:  # a listener of the checkout forked: the child
                return self.connect()
        elif fairy.dbapi_connection is not None:
            self._detached.add(fairy)  # by a listener of the checkout
        return fairy

    def _do_get(self) -> ConnectionPoolEntry:
        try:
            ticket = self._gate.acquire()
            if ticket is None:
                ticket = self._wait()
            entry: Entry | None = ticket.take(self._idle)
            if entry is None:
                entry = self._open_entry(ticket)
            elif entry.socket is not None:
                finding = entry.socket.probe()
                if finding is not None:
                    entry.ticket = ticket
                    self._discard(entry, finding)
        except _native.Forked:
            fork.renew(self)
            return self._do_get()
        entry.ticket = ticket
        return entry

    def _open_entry(self, ticket: _native.Ticket) -> Entry:
        """Connect for an empty slot.

        Raises:
            Forked: The process was forked meanwhile (by another greenlet), and this is
                the child: the slot is one of the parent's pool.
        """
        try:
            entry = Entry(self)
        except BaseException as error:
            if ticket.used and isinstance(error, Exception):
                raise _native.Forked from error
            self._sleepers.wake(ticket.vacate())
            raise
        if ticket.used:
            entry.close()
            raise _native.Forked
        return entry

    def remember(self, entry: Entry) -> None:
        """Have an entry made quiet in children, for as long as it lives.

        Args:
            entry: A new entry of this pool, before it connects.
        """
        self._entries.add(entry)

    def _discard(self, entry: Entry, finding: str) -> None:
        """End an idle connection that is not at rest; the entry connects anew.

        Nothing is sent: a peer that is out of step would take it for something else.
        """
        if entry.dbapi_connection is None or entry.socket is None:
            return
        # A server that goes away is routine; answers to nobody's question are not.
        routine = finding != "desynchronised"
        self.logger.log(
            logging.INFO if routine else logging.WARNING,
            "Connection %r is %s; replacing it",
            entry.dbapi_connection,
            finding,
        )
        entry.socket.sever()
        try:
            entry.invalidate()
        except BaseException:  # of a listener
            self.give_up(entry)
            raise

    def _wait(self) -> _native.Ticket:
        started = time.monotonic()
        if self._timeout == 0:
            ticket = None
        elif locks_are_replaced():
            ticket = self._sleepers.wait(self._gate, self._timeout)
        else:
            ticket = self._gate.wait(self._timeout)
        if ticket is None:
            raise self._timed_out(time.monotonic() - started)
        return ticket

    def _timed_out(self, waited: float) -> PoolTimeout:
        stats = self.stats()
        return PoolTimeout(
            self._name(),
            stats.size,
            stats.max_overflow,
            stats.in_use,
            stats.waiting,
            waited,
            self.holders()[:_HOLDERS_NAMED],
        )

    # --- check-in -------------------------------------------------------------------

    def _do_return_conn(self, record: Any) -> None:
        entry: Entry = record
        fairy = entry.lent_to() if entry.lent_to is not None else None
        if fairy is not None and fairy._connection_record is entry:
            if entry.dbapi_connection is not None:
                # The next holder's before long. SQLAlchemy takes it from the fairy when
                # all is done, and an interruption may come between.
                fairy._connection_record = None
                fairy.dbapi_connection = None  # type: ignore[assignment]
            elif fairy.dbapi_connection is not None:
                self._detached.add(fairy)
        ticket = entry.ticket
        answer = ticket.release(self._idle, entry)
        if answer is None:
            return
        if answer == _SURPLUS:
            try:
                entry.close()
            finally:
                self._sleepers.wake(ticket.vacate())
        elif answer == _NOBODYS:
            self._close_nobodys(entry)
        else:
            self._sleepers.wake(answer)

    def give_up(self, entry: Entry) -> None:
        """Take back the slot of an entry whose check-in failed half-way.

        Args:
            entry: An entry of this pool.
        """
        if not entry.ticket.used:
            try:
                entry.close()
            finally:
                self._sleepers.wake(entry.ticket.vacate())

    def _close_nobodys(self, entry: Entry) -> None:
        """Close what belongs to a disposed generation, but no leftover of a fork."""
        if self._generation != _native.generation():
            fork.renew(self)
        entry.close()

    # --- connections ----------------------------------------------------------------

    def _should_wrap_creator(self, creator: Any) -> Any:
        create = super()._should_wrap_creator(creator)

        def open_and_watch(entry: Entry) -> DBAPIConnection:
            return self._open(create, entry)

        return open_and_watch

    def _open(self, create: Any, entry: Entry) -> DBAPIConnection:
        fork.protect(self._dialect)
        # create_engine(pool=…) sets it late.
        guard_dialect(self._dialect, own_pool=True)
        while True:
            before = _native.generation()
            connection: DBAPIConnection = create(entry)
            if _native.generation() == before:
                entry.socket = sockets.watch(connection)
                return connection
            # A greenlet that was connecting at the fork goes on in both processes: this
            # is the child, and the session is the parent's.
            number = sockets.descriptor(connection)
            if number is not None:
                _native.sever(number)
            fork.disown(connection)

    def _close_connection(
        self, connection: DBAPIConnection, *, terminate: bool = False
    ) -> None:
        if self._generation != _native.generation():
            fork.renew(self)
        if fork.is_inherited(connection):
            return
        if sockets.is_severed(connection):
            self._close_severed(connection)
        else:
            super()._close_connection(connection, terminate=terminate)
        sockets.unwatch(connection)

    def _close_severed(self, connection: DBAPIConnection) -> None:
        """Close what has no session any more; the driver's goodbye is meant to fail."""
        try:
            self._dialect.do_terminate(connection)
        except Exception as error:  # noqa: BLE001 - the driver's own, of any class
            self.logger.debug("Closing severed connection %r: %r", connection, error)

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
                fork.ForkedFairy.take_over(fairy, self._opened_by)
            fork.disown(entry.dbapi_connection)
            entry.dbapi_connection = None
            entry.fairy_ref = None
            entry.finalize_callback.clear()
        for fairy in list(self._detached):
            fork.ForkedFairy.take_over(fairy, self._opened_by)
        fork.renew_listeners(self)
        if self._generation == _native.generation():
            return  # a destructor has used the pool meanwhile
        self._entries = weakref.WeakSet()
        self._detached = weakref.WeakSet()
        self._idle = {}
        self._opened_by = os.getpid()
        self._gate = self._make_gate()
        self._generation = _native.generation()
        self._sleepers.wake_all()

    # --- the rest of QueuePool's methods ----------------------------------------------

    def dispose(self) -> None:
        """Close the idle connections; those that are out are closed when they return.

        The pool remains usable. In a child, connections of the parent are left alone.
        """
        try:
            idle, waiters = self._gate.expire_all(self._idle)
        except _native.Forked:
            fork.renew(self)
            return self.dispose()
        for number in waiters:
            self._sleepers.wake(number)
        for entry in idle:
            entry.close()
        self.logger.info("Pool disposed. %s", self.status())
        return None

    def recreate(self) -> Pool:
        """Make an empty pool of the same class with the same parameters and listeners.

        Returns:
            The new pool.
        """
        self.logger.info("Pool recreating")
        return self.__class__(
            self._creator,
            pool_size=self._size,
            max_overflow=self._max_overflow,
            timeout=self._timeout,
            use_lifo=self._lifo,
            recycle=self._recycle,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=self._reset_on_return,
            pre_ping=self._pre_ping,
            _dispatch=self.dispatch,
            dialect=self._dialect,
        )

    def stats(self) -> PoolStats:
        """Count what this pool has in this process.

        Returns:
            The numbers at one instant.
        """
        try:
            idle, lent, waiting, lent_total, waited_total = self._gate.snapshot()
        except _native.Forked:
            fork.renew(self)
            return self.stats()
        return PoolStats(
            size=self._size,
            max_overflow=self._max_overflow,
            idle=idle,
            in_use=lent,
            waiting=waiting,
            checkouts_total=lent_total,
            waited_total=waited_total,
            generation=_native.generation(),
        )

    def holders(self) -> tuple[Holder, ...]:
        """Say who holds connections.

        Returns:
            One `Holder` for each slot that is lent, longest first.
        """
        try:
            held = self._gate.holders()
        except _native.Forked:
            fork.renew(self)
            return self.holders()
        names = _thread_names()
        pid = os.getpid()
        return tuple(
            Holder(names.get(thread, f"ended thread {thread}"), pid, held_s)
            for _slot, thread, held_s in held
        )

    def status(self) -> str:
        """Describe the state in one line, in QueuePool's words."""
        return (
            f"Pool size: {self.size()}  Connections in pool: {self.checkedin()} "
            f"Current Overflow: {self.overflow()} Current Checked out "
            f"connections: {self.checkedout()}"
        )

    def size(self) -> int:
        """Connections kept when idle (`pool_size`)."""
        return self._size

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
        return stats.idle + stats.in_use - self._size if self._size else 0

    def _name(self) -> str:
        return self._orig_logging_name or f"{id(self):#x}"


def _thread_names() -> dict[int | None, str]:
    """Name the threads of this process by the numbers that the gate knows them by."""
    kind = "a greenlet of " if locks_are_replaced() else ""
    names = {
        # The greenlets of a thread have its number; the thread itself came first.
        thread.native_id: kind + thread.name
        for thread in reversed(threading.enumerate())
    }
    here = threading.get_native_id()
    if here not in names:
        # Python 3.10 keeps the parent's number for the thread that a fork leaves.
        names[here] = threading.current_thread().name
    return names
