"""`AsyncPool`: the pool for async engines, over the same gate and the same code.

SQLAlchemy calls it in the greenlet of a task, so what waits for the server waits in the
task's loop. What differs from `Pool` is here: a connection belongs to the loop that it
was opened in, is lent there alone, and is closed there; and a connection that nobody
has any more is closed without a word of the driver's, for nobody could wait for it.
"""

from __future__ import annotations

import asyncio
import atexit
import sys
from typing import TYPE_CHECKING, Any

from sqlalchemy import exc
from sqlalchemy.util import await_only, greenlet_spawn

from poolproof import _native
from poolproof._sqlalchemy import share_first_connect
from poolproof.drivers import known
from poolproof.fork import loops, renewal, sockets
from poolproof.pool import deadlines, loop_closing, maintenance_thread
from poolproof.pool.first_connect import FirstConnect
from poolproof.pool.loop_checkout import LoopCheckout
from poolproof.pool.loop_entry import Loan, LoopEntry, checkout_places
from poolproof.pool.loops import TaskWaiters, is_alive, running_loop
from poolproof.pool.maintenance import UNPLANNED

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

    from sqlalchemy.engine.interfaces import DBAPIConnection

    from poolproof.pool.entry import Entry

__all__ = ["AsyncPool"]

OTHER_LOOP = "other_loop"
LOST = "lost"

_LOST = (
    "poolproof: A connection of pool %s (backend pid %s) was collected, and not closed "
    "before; it is ended, and its slot is free. It was checked out at:\n%s"
)


class AsyncPool(LoopCheckout):
    """A pool for async engines whose connections survive forks and cancellations.

    Takes the place of `AsyncAdaptedQueuePool`, with the parameters, numbers and events
    of `Pool`: `create_async_engine(url, poolclass=poolproof.AsyncPool)`. For asyncpg,
    psycopg, and poolproof's own driver, which has it by default.

    One engine may be used in several loops, in as many threads. Their tasks stand in
    one queue, and each connection is lent in the loop alone that it was opened in.
    """

    _is_asyncio = True
    _entry_class = LoopEntry
    _waiters_class = TaskWaiters
    _lends_by_thread = True
    _sqla_logger_namespace = "sqlalchemy.pool.poolproof.AsyncPool"

    def __init__(self, *args: Any, **kw: Any) -> None:
        """Make an empty pool; nothing is connected yet.

        Args:
            *args: As for `Pool`.
            **kw: As for `Pool`.

        Raises:
            ArgumentError: A value of the wrong type or outside its range, two that do
                not go together, or the engine is a sync one.
        """
        # Which loop a connection belongs to, by its id, as long as it is open.
        self._loops: dict[int, asyncio.AbstractEventLoop] = {}
        self._loans: set[Loan] = set()
        super().__init__(*args, **kw)

    # --- checkout -------------------------------------------------------------------

    def _lend_otherwise(self, ticket: Any, began: float, due: float | None) -> Entry:
        """Lend what the gate has found, if it is of this loop; else see to one.

        Args:
            ticket: An entry, with its ticket; or the ticket of an empty slot; or None.
            began: When the checkout began, on the monotonic clock.
            due: When it must have ended.
        """
        if type(ticket) is not LoopEntry:
            if ticket is None:
                ticket = self._take_lost() or self._wait(began, due)
            found = ticket.take(self._idle)
            if found is None:
                return self._open_for_caller(ticket, began, due)
            found.ticket = ticket
            ticket = found
        loop = running_loop()
        if ticket.loop is loop or ticket.dbapi_connection is None:
            return ticket  # type: ignore[no-any-return]
        try:
            return self._of_this_loop(ticket, loop, began, due)
        except BaseException:
            self.give_up(ticket)
            raise

    def _take_lost(self) -> _native.Ticket | None:
        """Take a slot whose borrower was collected, and the pool not told to the end.

        What a signal raises while it is told goes nowhere, and the slot would be lost.
        """
        loans = list(self._loans)
        # Whoever has to wait comes here, so it goes through them in C.
        if None not in map(Loan.__call__, loans):
            return None
        for loan in loans:
            if loan() is None:
                self.end_loan(loan)
        ticket = self._gate.acquire()
        if ticket is not None:
            ticket.name_strand(self.strand())
        return ticket

    def _of_this_loop(
        self,
        entry: LoopEntry,
        loop: asyncio.AbstractEventLoop | None,
        began: float,
        due: float | None,
    ) -> Entry:
        """Put what another loop's is back to rest, or else close it.

        Returns:
            An entry of this loop's, or one that has no connection.
        """
        own = self._exchange(entry, loop)
        if own is not None:
            return own
        if is_alive(entry.loop):
            spare = self._gate.spare(sys.maxsize)
            if spare is not None:
                ticket, entry.ticket = entry.ticket, spare
                self._rest(entry)
                return self._open_for_caller(ticket, began, due)
        entry.retire(OTHER_LOOP)
        return entry

    def _exchange(
        self, entry: LoopEntry, loop: asyncio.AbstractEventLoop | None
    ) -> LoopEntry | None:
        """Take an entry of this loop that rests, and have another rest in its slot.

        Args:
            entry: One of another loop's, with the ticket that its caller was granted.
            loop: The caller's.

        Returns:
            The entry, with the caller's ticket; None where none rests.
        """
        for slot, resting in list(self._idle.items()):
            if getattr(resting, "loop", None) is not loop:
                continue
            place = self._gate.claim(slot)
            if place is None:
                continue
            found: Any = place.take(self._idle)
            if found is None:
                self._waiters.wake(place.vacate())
                continue
            if found.loop is loop:
                found.ticket, entry.ticket = entry.ticket, place
                self._rest(entry)
                return found  # type: ignore[no-any-return]
            found.ticket = place
            self._rest(found)
        return None

    def _rest(self, entry: LoopEntry) -> None:
        """Have an entry rest in the slot of its ticket, as it has rested before."""
        answer = entry.ticket.release(self._idle, entry, None)
        if answer is not None:
            self._let_go(entry, answer)

    def caller(self) -> tuple[str, list[tuple[CodeType, int]]]:
        """Name the task that calls, and say where it does."""
        task = asyncio.current_task() if running_loop() is not None else None
        places: list[Any] = checkout_places()
        by_turns = zip(places[::2], places[1::2], strict=True)
        return "" if task is None else f"task {task.get_name()}", list(by_turns)

    def _tasks(self) -> dict[int, str]:
        tasks = {}
        for loan in list(self._loans):
            name = loan.borrower()
            if name is not None and loan.entry.fairy_ref is loan:
                tasks[loan.entry.ticket.slot] = name
        return tasks

    def has_idle(self) -> bool:
        """Tell whether a connection of this loop rests."""
        loop = running_loop()
        return any(
            entry.dbapi_connection is not None and getattr(entry, "loop", None) is loop
            for entry in list(self._idle.values())
        )

    def _find_resting(self) -> Entry | None:
        """Take a connection of this loop that rests, where none could be opened."""
        loop = running_loop()
        while self.has_idle():
            ticket = self._gate.acquire()
            if ticket is None:
                return None
            ticket.name_strand(self.strand())
            entry: Any = ticket.take(self._idle)
            if entry is None:
                self._waiters.wake(ticket.vacate())
                self.unopened.add("checkout")
                continue
            entry.ticket = ticket
            if entry.dbapi_connection is not None and entry.loop is loop:
                return entry  # type: ignore[no-any-return]
            own = self._exchange(entry, loop)
            if own is not None and own.dbapi_connection is not None:
                return own
            self._rest(entry if own is None else own)
            self.unopened.add("checkout")
        return None

    # --- connections ----------------------------------------------------------------

    def _open(self, create: Any, entry: Entry) -> DBAPIConnection:
        if running_loop() is None:
            msg = (
                "poolproof.AsyncPool opens a connection in a loop of asyncio, and no "
                "loop of asyncio runs in this thread: use the AsyncEngine, in a task"
            )
            raise exc.MissingGreenlet(msg)
        share_first_connect(self, FirstConnect)
        return super()._open(create, entry)

    def _take_over(
        self, connection: DBAPIConnection, entry: Entry, user_timeout_lent: bool
    ) -> None:
        """Learn what a new connection is, and which loop's."""
        loop = running_loop()
        driver = known.of(connection, self._dialect)
        if not driver.is_at_loop or loop is None:
            super()._close_connection(connection)
            name = getattr(self._dialect, "driver", "unknown")
            msg = (
                "poolproof.AsyncPool is for asyncpg, psycopg and poolproof's own "
                f"driver, not {name}; leave poolclass out, and "
                "poolproof.guard(engine) alone"
            )
            raise exc.ArgumentError(msg)
        assert isinstance(entry, LoopEntry)  # noqa: S101 - of _entry_class
        entry.loop = loop
        loops.meet(loop)
        self._loops[id(connection)] = loop
        driver.meet(connection)
        super()._take_over(connection, entry, user_timeout_lent)
        try:
            begins = driver.see_pooler(connection)
        except BaseException:
            self._close_connection(connection)
            raise
        if begins:
            entry.is_new = True  # after the listeners it is to be left

    def read_session(self, entry: Entry) -> None:
        """Leave the beginning of a new connection, and read what is to be set again.

        Args:
            entry: Of a new connection, after the listeners of `connect`.
        """
        entry.driver.leave_beginning(entry.dbapi_connection)
        if self._discards:
            super().read_session(entry)

    def _close_connection(
        self, connection: DBAPIConnection, *, terminate: bool = False
    ) -> None:
        """Close a connection in its loop, whoever the caller is; wait for nothing."""
        del terminate
        if self._generation != _native.generation():
            renewal.renew(self)
        loop = self._loops.pop(id(connection), None)
        if renewal.is_inherited(connection):
            return
        driver = known.of(connection, self._dialect)
        leaving = self.shares.leaving(connection, self._hear_of_leaving)
        if sockets.is_foreign(connection):
            self._forget_foreign(connection)
            sockets.unwatch(connection)
            return
        loop_closing.close(
            connection, driver, loop, self.settings.reset_timeout, leaving
        )

    def _hear_of_leaving(self) -> None:
        maintenance_thread.look_at(self)

    def _pause(self, seconds: float) -> None:
        await_only(asyncio.sleep(seconds))

    def open_ahead(self, work: Callable[[], float]) -> float:
        """Have a connection opened ahead of need, in the loop of one that there is.

        Args:
            work: Opens it; returns when there is more to do, on the monotonic clock.

        Returns:
            When to look again: never, for the loop asks for it.
        """

        async def open_one() -> None:
            due = await greenlet_spawn(work)
            if due < UNPLANNED:
                maintenance_thread.look_at(self, due)

        for entry in self.entries():
            loop = entry.loop if isinstance(entry, LoopEntry) else None
            if (
                loop is not None
                and is_alive(loop)
                and loop_closing.in_loop(loop, open_one, to_its_end=False)
            ):
                break
        return UNPLANNED

    def renew(self) -> None:
        """Start afresh in a child: nothing lent, nothing idle, nobody waiting."""
        if self._generation != _native.generation():
            self._loops, self._loans = {}, set()
            for entry in self.entries():
                if entry.dbapi_connection is not None:
                    entry.driver.leave_to_parent(entry.dbapi_connection)
        super().renew()

    def end(self) -> None:
        """Close what there is, at the interpreter's end: no loop will do it."""
        for entry in self.entries():
            entry.fairy_ref = None  # what is still out is no loss
            connection = entry.dbapi_connection
            if connection is not None and not is_alive(getattr(entry, "loop", None)):
                entry.dbapi_connection = None
                self._close_connection(connection)

    def end_loan(self, loan: Loan) -> None:
        """Forget what was lent, and take back the slot if it was not given back.

        Args:
            loan: Of a borrower that has been collected.
        """
        entry = loan.entry
        if entry.fairy_ref is not loan or self._generation != _native.generation():
            self._loans.discard(loan)
            return
        try:
            self._end_lost(entry, loan)
        finally:
            entry.fairy_ref = None
            entry.held = None
            self.give_up(entry)
            # Last: until then who needs the slot takes it, if this is interrupted.
            self._loans.discard(loan)

    def _end_lost(self, entry: LoopEntry, loan: Loan) -> None:
        """Say what was lost, and end its connection."""
        try:
            self.logger.error(
                _LOST,
                self.name(),
                deadlines.backend_pid(entry) or "unknown",
                loan.describe().rstrip(),
                extra=entry.fields(reason=LOST),
            )
        finally:
            entry.reason = LOST
            entry.finalize_callback.clear()
            entry.invalidate()


@atexit.register
def _end_all() -> None:
    for pool in renewal.pools():
        if isinstance(pool, AsyncPool):
            pool.end()
