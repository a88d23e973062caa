"""What the pool raises.

    sqlalchemy.exc.OperationalError
     ├─ BreakerOpen           no attempt to connect is made now
     └─ ConnectionForked      a connection of the parent was used in a child
    sqlalchemy.exc.TimeoutError
     └─ PoolTimeout           no connection was to be had in time
         ├─ NestedCheckout    because every holder waited for one more
         └─ TooManyWaiting    at once, because as many waited as may
    sqlalchemy.exc.SQLAlchemyError
     ├─ CommitOutcomeUnknown  the answer to a commit was lost
     ├─ ControlError          the control plane got no answer, or was refused
     └─ LeaseError            a lease was used in a way that cannot be
         ├─ LeaseForked       a lease of the parent was used in a child
         ├─ LeaseLost         it was held, and is not any more
         └─ LeaseTimeout      another holder had it all the time
    builtins.TimeoutError
     └─ DeadlineExceeded      why the socket of a connection was shut: the cause of the
                              driver's error, or of a PoolTimeout

All of them survive pickling, as Celery and multiprocessing need it.
Long, because it is one idea: the family.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from sqlalchemy import exc

__all__ = [
    "BreakerOpen",
    "CommitOutcomeUnknown",
    "ConnectionForked",
    "ControlError",
    "DeadlineExceeded",
    "Holder",
    "LeaseError",
    "LeaseForked",
    "LeaseLost",
    "LeaseTimeout",
    "NestedCheckout",
    "PoolTimeout",
    "TooManyWaiting",
]


@dataclasses.dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a slot.

    Attributes:
        thread: Name of the thread that checked the connection out; with `AsyncPool`
            the task's stands before it.
        process_id: The process it runs in.
        held_s: For how long, in seconds.
    """

    thread: str
    process_id: int
    held_s: float

    def __str__(self) -> str:
        """Name, process and seconds, for an error's text."""
        return f"{self.thread} (process {self.process_id}) for {self.held_s:.2f} s"


class BreakerOpen(exc.DontWrapMixin, exc.OperationalError):
    """A connection would have to be opened, and too many attempts have failed.

    Nothing was tried and nothing was sent. Its cause is the last real error. One caller
    at a time tries again as the backoff says; the first success ends it.

    Attributes:
        pool: The pool's name.
        failures: Attempts that have failed in a row.
        failing_s: Since the first of them, in seconds.
        probe_in_s: Until the next attempt is due, in seconds; 0 when it is due or under
            way.
        last_error: The first line of the last real error.
    """

    __module__ = "poolproof"

    def __init__(
        self,
        pool: str,
        failures: int,
        failing_s: float,
        probe_in_s: float,
        last_error: str,
    ) -> None:
        """Make the error; the arguments are its attributes."""
        self.pool = pool
        self.failures = failures
        self.failing_s = failing_s
        self.probe_in_s = probe_in_s
        self.last_error = last_error
        probe = f"is due in {probe_in_s:.2f} s" if probe_in_s else "is due or under way"
        text = (
            f"pool {pool!r} does not connect now: {failures} failed in a row within "
            f"{failing_s:.1f} s, as many as fail_fast_after allows or more. The next "
            f"attempt {probe}. The last error: {last_error}"
        )
        super().__init__(None, None, ConnectionRefusedError(text))

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by the attributes."""
        return type(self), (
            self.pool,
            self.failures,
            self.failing_s,
            self.probe_in_s,
            self.last_error,
        )

    def __str__(self) -> str:
        """The sentence alone, without the driver prefix and the background link."""
        return str(self.orig)


class ConnectionForked(exc.DontWrapMixin, exc.OperationalError):
    """A connection that was opened before a fork was used in the child.

    The parent's session is unharmed and nothing was sent. A new checkout on the same
    engine works: roll the session back (or remove it), then go on.

    Attributes:
        parent_pid: The process that opened the connection.
        child_pid: The process that used it.
    """

    __module__ = "poolproof"

    def __init__(self, parent_pid: int, child_pid: int) -> None:
        """Make the error.

        Args:
            parent_pid: Process that opened the connection.
            child_pid: Process that used it.
        """
        self.parent_pid = parent_pid
        self.child_pid = child_pid
        text = (
            f"this connection was opened by process {parent_pid} and is used in "
            f"process {child_pid}, which was forked from it; nothing was sent. Roll "
            "back or close the session (or connection) here and check out a new one: "
            "the same engine gives this process connections of its own"
        )
        super().__init__(
            None,
            None,
            ConnectionAbortedError(text),
            connection_invalidated=True,
        )

    def __reduce__(self) -> tuple[type[ConnectionForked], tuple[int, int]]:
        """Pickle by the two process ids."""
        return type(self), (self.parent_pid, self.child_pid)

    def __str__(self) -> str:
        """The sentence alone, without the driver prefix and the background link."""
        return str(self.orig)


class ControlError(exc.DontWrapMixin, exc.SQLAlchemyError):
    """An operation of the control plane failed, and nothing else did.

    The application's pool and its connections have no part in it.

    Attributes:
        kind: ``"server"`` (no connection, no answer, or a refusal), ``"table"`` (the
            table of leases is not as it must be) or ``"parameters"``.
        sqlstate: What the server gave as SQLSTATE; None when it gave none.
    """

    __module__ = "poolproof"

    def __init__(
        self, text: str, *, kind: str = "server", sqlstate: str | None = None
    ) -> None:
        """Make the error.

        Args:
            text: What happened, without any secret.
            kind: See the attribute.
            sqlstate: See the attribute.
        """
        self.kind = kind
        self.sqlstate = sqlstate
        super().__init__(text)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by the attributes."""
        return _control_error, (str(self), self.kind, self.sqlstate)


def _control_error(text: str, kind: str, sqlstate: str | None) -> ControlError:
    return ControlError(text, kind=kind, sqlstate=sqlstate)


class LeaseError(exc.DontWrapMixin, exc.SQLAlchemyError):
    """A lease was used that is not held, or in a way that cannot be.

    Attributes:
        name: The lease's name.
        reason: What is wrong.
    """

    __module__ = "poolproof"
    _says = ""

    def __init__(self, name: str, reason: str) -> None:
        """Make the error; the arguments are its attributes."""
        self.name = name
        self.reason = reason
        says = self._says and f" {self._says}"
        super().__init__(f"lease {name!r}{says}: {reason}")

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by the attributes."""
        return type(self), (self.name, self.reason)


class LeaseLost(LeaseError):  # noqa: N818 - a fact, as TimeoutError has it
    """A lease was held and is not any more: stop what it allowed.

    Another holder may have it. What was written under `Lease.guard` before is safe;
    what is written without it may not be.
    """

    __module__ = "poolproof"
    _says = "is lost"


class LeaseTimeout(LeaseError, TimeoutError):  # noqa: N818 - as TimeoutError has it
    """Another holder had the lease for as long as the caller would wait."""

    __module__ = "poolproof"
    _says = "was not acquired"


class LeaseForked(LeaseError):  # noqa: N818 - as ConnectionForked
    """A lease, or a heartbeat, of the parent was used in a child.

    The parent still has it. The child may acquire a lease of its own.

    Attributes:
        parent_pid: The process that has it.
        child_pid: The process that used it.
    """

    __module__ = "poolproof"
    _says = "is not this process's"

    def __init__(self, name: str, parent_pid: int, child_pid: int) -> None:
        """Make the error; the arguments are its attributes."""
        self.parent_pid = parent_pid
        self.child_pid = child_pid
        super().__init__(
            name,
            f"process {parent_pid} has it, and process {child_pid} was forked from it; "
            "acquire a lease of its own in the child",
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by the name and the two process ids."""
        return type(self), (self.name, self.parent_pid, self.child_pid)


class DeadlineExceeded(TimeoutError):  # noqa: N818 - as TimeoutError has it
    """A deadline passed, and the socket was shut to end the call.

    Never raised by itself: it is the cause of the error that the call ended with, which
    SQLAlchemy takes for an ordinary disconnect.

    Attributes:
        step: What took too long: ``"checkout"``, ``"connect"``, ``"ping"``,
            ``"rollback"``, ``"reset"``, ``"deadline"`` (a block under
            `poolproof.deadline`), ``"hold"`` or ``"idle_hold"``.
        limit: How long it might have taken, in seconds, to the millisecond.
        backend_pid: The server's process id of the session, when it is known.
    """

    __module__ = "poolproof"

    def __init__(self, step: str, limit: float, backend_pid: int | None = None) -> None:
        """Make the error; the arguments are its attributes."""
        self.step = step
        # What was left of a longer limit is no round number.
        self.limit = limit = round(limit, 3) or limit
        self.backend_pid = backend_pid
        session = "" if backend_pid is None else f" (backend pid {backend_pid})"
        what, advice = _STEPS.get(step, (step, "raise the timeout"))
        super().__init__(
            f"the limit of {limit:g} s for {what} has passed{session}. Look at the "
            f"network and the server, or {advice}"
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by the attributes."""
        return type(self), (self.step, self.limit, self.backend_pid)


_STEPS = {
    "checkout": ("a whole checkout", "raise checkout_timeout"),
    "connect": ("connecting", "raise checkout_timeout"),
    "ping": ("a ping", "raise ping_timeout"),
    "rollback": ("a rollback", "raise reset_timeout"),
    "reset": ("a reset at check-in", "raise reset_timeout"),
    "deadline": ("a block under poolproof.deadline", "give the block more seconds"),
    "hold": ("holding a connection", "return it sooner, or raise hold_timeout"),
    "idle_hold": (
        "holding a connection with no statement under way",
        "return it before waiting for something else, or raise idle_hold_timeout",
    ),
}


class CommitOutcomeUnknown(exc.SQLAlchemyError):
    """The answer to a commit was lost: the work may be done, or not.

    It is no `OperationalError`, so that nobody who repeats after those repeats this.
    Its cause is the error that the commit ended with.

    Attributes:
        unit: The name of the unit of work.
        xid: The transaction's number, which `pg_xact_status` knows for some time; None
            where it was not asked (`verify_commit`).
        elapsed: Since the first attempt began, in seconds.
    """

    __module__ = "poolproof"

    def __init__(self, unit: str, xid: int | None, elapsed: float) -> None:
        """Make the error; the arguments are its attributes."""
        self.unit = unit
        self.xid = xid
        self.elapsed = elapsed
        asked = (
            "verify_commit=True would ask the server"
            if xid is None
            else f"select pg_xact_status('{xid}') may say more later"
        )
        super().__init__(
            f"the answer to the commit of {unit} was lost after {elapsed:.2f} s, and "
            f"whether it took effect is not known: look at the data before it is done "
            f"again; {asked}"
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by the attributes."""
        return type(self), (self.unit, self.xid, self.elapsed)


class PoolTimeout(exc.TimeoutError):
    """No connection was to be had in time.

    Its cause, when it has one, says why: the last error of connecting, or a
    `DeadlineExceeded`.

    Attributes:
        pool: The pool's name.
        size: Connections kept (`pool_size`); 0 is without bound.
        max_overflow: Connections allowed beyond `size`; -1 is without bound.
        in_use: Slots lent when the wait ended.
        waiting: Other callers still waiting then.
        waited: How long this caller waited, in seconds.
        holders: Who has held a slot longest, longest first, at most five.
        reason: What kept a caller who had a slot; empty for one who waited for a slot.
    """

    __module__ = "poolproof"

    def __init__(
        self,
        pool: str,
        size: int,
        max_overflow: int,
        in_use: int,
        waiting: int,
        waited: float,
        holders: tuple[Holder, ...] = (),
        reason: str = "",
    ) -> None:
        """Make the error; the arguments are its attributes."""
        self.pool = pool
        self.size = size
        self.max_overflow = max_overflow
        self.in_use = in_use
        self.waiting = waiting
        self.waited = waited
        self.holders = holders
        self.reason = reason
        super().__init__(self._text(), code="3o7r")

    def _text(self) -> str:
        if self.reason:
            return (
                f"pool {self.pool!r} gave no connection within {self.waited:.2f} s: "
                f"{self.reason}"
            )
        held = "; ".join(str(holder) for holder in self.holders) or "nobody"
        return (
            f"pool {self.pool!r} gave no connection within {self.waited:.2f} s: "
            f"size {self.size}, overflow {self.max_overflow}, {self.in_use} in use, "
            f"{self.waiting} more waiting. Held longest by: {held}. "
            "Return connections sooner, or raise pool_size or max_overflow"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the attributes."""
        return type(self), (
            self.pool,
            self.size,
            self.max_overflow,
            self.in_use,
            self.waiting,
            self.waited,
            self.holders,
            self.reason,
        )


class NestedCheckout(PoolTimeout):
    """No connection was to be had, for every holder waited here for one more.

    The caller holds connections of this pool and asks for another, as all the others
    who hold one do.

    Attributes:
        callers: Callers who held a connection, waited for one, or both.
        held: Connections that this caller holds.
        most: Connections that the caller who holds most holds.
    """

    __module__ = "poolproof"

    def __init__(
        self,
        pool: str,
        size: int,
        max_overflow: int,
        in_use: int,
        waiting: int,
        waited: float,
        holders: tuple[Holder, ...] = (),
        reason: str = "",
        callers: int = 1,
        held: int = 1,
        most: int = 1,
    ) -> None:
        """Make the error; the arguments are its attributes."""
        self.callers = callers
        self.held = held
        self.most = most
        super().__init__(
            pool, size, max_overflow, in_use, waiting, waited, holders, reason
        )

    @staticmethod
    def enough_for(callers: int, most: int) -> int:
        """Say how many connections are always enough.

        Args:
            callers: How many hold a connection, wait for one, or both.
            most: How many one of them holds at most, beside the one it waits for.
        """
        return callers * (most + 1)

    @property
    def enough(self) -> int:
        """Connections that would have been enough: callers x connections each."""
        return self.enough_for(self.callers, self.most)

    def _text(self) -> str:
        return (
            f"pool {self.pool!r} gave no connection within {self.waited:.2f} s: each "
            f"of its {self.in_use} connections was held by a caller that waited here "
            f"for one more; this caller holds {self.held}. {self.callers} callers with "
            f"{self.most + 1} connections each need {self.enough}: raise pool_size or "
            "max_overflow to that sum, or let each caller do with the connection that "
            "it has"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the attributes."""
        kind, facts = super().__reduce__()
        return kind, (*facts, self.callers, self.held, self.most)


class TooManyWaiting(PoolTimeout):
    """As many callers waited for a connection as `max_waiting` lets wait: not one more.

    Raised at once. What the callers who wait have is not touched.

    Attributes:
        max_waiting: Callers that may wait at once.
    """

    __module__ = "poolproof"

    def __init__(
        self,
        pool: str,
        size: int,
        max_overflow: int,
        in_use: int,
        waiting: int,
        waited: float,
        holders: tuple[Holder, ...] = (),
        reason: str = "",
        max_waiting: int = 0,
    ) -> None:
        """Make the error; the arguments are its attributes."""
        self.max_waiting = max_waiting
        super().__init__(
            pool, size, max_overflow, in_use, waiting, waited, holders, reason
        )

    def _text(self) -> str:
        held = "; ".join(str(holder) for holder in self.holders) or "nobody"
        return (
            f"pool {self.pool!r} refused a caller at once: {self.waiting} wait for a "
            f"connection, and max_waiting lets {self.max_waiting} wait; size "
            f"{self.size}, overflow {self.max_overflow}, {self.in_use} in use. Held "
            f"longest by: {held}. Return connections sooner, send callers away before "
            "they come here, or raise pool_size, max_overflow or max_waiting"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the attributes."""
        kind, facts = super().__reduce__()
        return kind, (*facts, self.max_waiting)
