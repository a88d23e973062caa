"""Deadlines: what a call may take before the watchdog shuts its socket.

The watchdog (src/socket/deadline.rs) is a thread outside the interpreter: it needs no
help of the driver, which may block without seeing signals. The call then ends at once,
as a disconnect; `explain` gives that error its reason.
"""

from __future__ import annotations

import errno
import math
import os
import time
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING

from poolproof import _native
from poolproof._sqlalchemy import ConnectionRecord
from poolproof.drivers.backend import pid_of as backend_pid
from poolproof.errors import DeadlineExceeded

if TYPE_CHECKING:
    from contextvars import Token
    from types import TracebackType

    from typing_extensions import Self

    from poolproof._native import Socket
    from poolproof.pool.owner import Owner

__all__ = [
    "Bounds",
    "backend_pid",
    "bounded",
    "current",
    "deadline",
]


# The system's words for a peer that does not answer, which libpq passes on.
_TIMED_OUT = os.strerror(errno.ETIMEDOUT)
_KEEP_ALIVES = "TCP keep-alives"


class deadline:  # noqa: N801 - used like a function
    """Bound every database call of this thread or task inside a block.

        with poolproof.deadline(2):
            session.execute(...)
            session.commit()

    When the seconds are over, the sockets of the connections that the block has used
    are shut. A call that is under way ends at once, a later one fails, both as an
    ordinary disconnect whose cause is `DeadlineExceeded`; waiting for a connection ends
    with `PoolTimeout`. A connection that was not used inside the block is left alone.

    Blocks may be nested; the earlier instant counts. The block is about the context in
    which it is opened: a thread that it starts is not bound by it, a task is.

    Attributes:
        seconds: The length that was given.
    """

    __slots__ = (
        "__weakref__",
        "_covered",
        "_due",
        "_outer",
        "_reference",
        "_token",
        "seconds",
    )

    def __init__(self, seconds: float) -> None:
        """Choose the length.

        Args:
            seconds: More than 0, counted from the beginning of the block.

        Raises:
            TypeError: Not a number.
            ValueError: NaN, or not above 0.
        """
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            msg = f"a deadline needs seconds, a number above 0, not {seconds!r}"
            raise TypeError(msg)
        try:
            seconds = float(seconds)
        except OverflowError:  # a whole number that no clock can count
            seconds = math.inf
        if math.isnan(seconds) or seconds <= 0:
            msg = f"a deadline needs seconds above 0, not {seconds!r}"
            raise ValueError(msg)
        self.seconds = seconds
        self._due = math.inf
        self._token: Token[_BlockRef | None] | None = None
        self._reference: _BlockRef | None = None
        self._outer: deadline | None = None
        # What the block has used, and which block it goes back to.
        self._covered: dict[Bounds, deadline | None] = {}

    @property
    def due(self) -> float:
        """The instant, on the monotonic clock."""
        return self._due

    @property
    def left(self) -> float:
        """Seconds that are left; 0 when none are."""
        return max(0.0, self._due - time.monotonic())

    @property
    def is_open(self) -> bool:
        """Whether the block is being run."""
        return self._token is not None

    def __enter__(self) -> Self:
        """Begin to count."""
        if self._token is not None:
            msg = "this deadline is in use; make a new one for each block"
            raise RuntimeError(msg)
        global ever_used  # noqa: PLW0603 - once set, never taken back
        ever_used = True
        self._outer = outer = current()
        due = time.monotonic() + self.seconds
        self._due = due if outer is None else min(due, outer.due)
        self._reference = reference = _BlockRef(self)
        reference.outer = _current.get()
        reference.counts = False
        self._token = _current.set(reference)
        reference.counts = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the deadline back from what the block has used."""
        token, self._token = self._token, None
        reference, self._reference = self._reference, None
        if reference is not None:
            reference.kept = self
        covered, self._covered = self._covered, {}
        # A copy: a thread that the context was copied to may cover one more meanwhile.
        for entry, outer in list(covered.items()):
            if entry.block is not self:  # returned meanwhile, or covered anew
                continue
            if outer is not None and outer.is_open:
                entry.block = outer
                _arm_block(entry, outer)
            elif entry.socket is not None and not entry.socket.disarm(_native.BLOCK):
                entry.block = None
        # At last: it fails where a block is left in another context than it was begun.
        if token is not None:
            _current.reset(token)

    async def __aenter__(self) -> Self:
        """Begin to count: the same, for ``async with``."""
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the deadline back from what the block has used."""
        self.__exit__(kind, error, traceback)

    def cover(self, entry: Bounds) -> None:
        """Let the deadline count for a connection until the block or its use ends.

        Args:
            entry: The pool entry of a connection that the block uses.
        """
        if entry.block is not self and self.is_open and entry.socket is not None:
            self._covered[entry] = entry.block or self._outer
            entry.bound = True
            entry.block = self
            _arm_block(entry, self)


class _BlockRef(weakref.ref["deadline"]):
    """What a context knows a block by.

    A signal may keep `__enter__` or `__exit__` from doing its work. A block that was
    not entered, and one that nobody has any more and that was not left, bounds nothing.

    Attributes:
        outer: That of the block around it.
        counts: Whether the block was entered.
        kept: The block, once it was left: its tasks are bound by it until they end.
    """

    __slots__ = ("counts", "kept", "outer")
    outer: _BlockRef | None
    counts: bool
    kept: deadline


# Whether this process has ever had such a block: sooner asked than the context.
ever_used = False
_current: ContextVar[_BlockRef | None] = ContextVar("poolproof_deadline", default=None)


def current() -> deadline | None:
    """Return the innermost block of this context."""
    reference = _current.get()
    while reference is not None:
        block = reference()
        if block is not None and reference.counts:
            return block
        reference = reference.outer
    return None


def _arm_block(entry: Bounds, block: deadline) -> None:
    if entry.socket is not None and block.due != math.inf:
        entry.socket.arm(_native.BLOCK, block.left)


class bounded:  # noqa: N801 - used like a function
    """Bound one call of the pool's own on a connection.

    Args:
        entry: The connection's entry.
        operation: What is done, as `DeadlineExceeded` names it.
        seconds: How long it may take; None sets no bound.
    """

    __slots__ = ("_entry", "_limit")

    def __init__(self, entry: Bounds, operation: str, seconds: float | None) -> None:
        self._entry = entry
        self._limit = None if seconds is None else (operation, seconds)

    def __enter__(self) -> None:
        """Arm."""
        entry, limit = self._entry, self._limit
        if limit is not None and entry.socket is not None:
            entry.operation = limit
            entry.socket.arm(_native.CALL, limit[1])

    def __exit__(self, *_error: object) -> None:
        """Disarm; what has passed stays known until the connection is closed."""
        socket = self._entry.socket
        if self._limit is not None and socket is not None:
            socket.disarm(_native.CALL)


class Bounds(ConnectionRecord):
    """What is bounded on one connection, and what has passed.

    Attributes:
        owner: The pool.
        socket: The connection's socket, if it has one.
        due: When the checkout that is under way must have ended, on the monotonic
            clock; None for no bound.
        began: When that checkout began.
        operation: The last bounded call on the connection, and its bound in seconds.
        block: The `poolproof.deadline` that counts for the connection.
        bound: Whether a bound that outlasts a call may be armed.
    """

    __slots__ = ("began", "block", "bound", "due", "operation", "owner", "socket")

    owner: Owner
    socket: Socket | None
    due: float | None
    began: float
    operation: tuple[str, float] | None
    block: deadline | None
    bound: bool

    def bound_checkout(self) -> None:
        """Bound what listeners ask of the connection before it is lent."""
        if self.socket is not None and self.due is not None:
            self.bound = True
            self.operation = ("checkout", round(self.due - self.began, 3))
            self.socket.arm(_native.CALL, self.due - time.monotonic())

    def bound_holding(self) -> None:
        """Begin to count how long the connection is held."""
        block = current()
        if block is not None:
            block.cover(self)
        settings = self.owner.settings
        if settings.idle_hold_timeout is not None:
            self.bound = True  # the keeper may arm it
        if settings.hold_timeout is not None and self.socket is not None:
            self.bound = True
            self.socket.arm(_native.HOLD, settings.hold_timeout)

    def bound_checkin(self) -> None:
        """Bound what others do while the connection comes back, until it rests."""
        limit = self.owner.settings.reset_timeout
        if limit is not None and self.socket is not None:
            self.bound = True
            self.operation = ("reset", limit)
            self.socket.arm(_native.CALL, limit)

    def unbound(self) -> None:
        """End what was counted: the connection comes to rest."""
        socket = self.socket
        if socket is not None:
            socket.disarm(_native.CALL)
            socket.disarm(_native.HOLD)
            if socket.disarm(_native.BLOCK):
                return  # what has passed stays known until it is discarded
        self.block = None
        self.bound = False

    def exceeded(self) -> DeadlineExceeded | None:
        """Say which deadline of the connection has passed.

        Returns:
            The reason, or None when its socket was not shut by the watchdog.
        """
        socket = self.socket
        passed = None if socket is None else socket.expired
        if passed is None:
            return None
        limit: tuple[str, float] | None = None
        if passed == _native.CALL:
            limit = self.operation
        elif passed == _native.BLOCK and self.block is not None:
            limit = ("deadline", self.block.seconds)
        elif passed == _native.HOLD:
            limit = self.hold_limit()
        operation, seconds = limit or ("call", 0.0)
        return DeadlineExceeded(operation, seconds, backend_pid(self))

    def hold_limit(self) -> tuple[str, float]:
        """Say for how long the connection might be held, and in which way."""
        return ("hold", self.owner.settings.hold_timeout or 0.0)

    def explain(self, error: BaseException) -> None:
        """Make what has ended the connection the cause of the error that it led to.

        That is the deadline that has passed, or a network whose silence the kernel has
        noticed, for which libpq and pg8000 have no more than the system's word.

        Args:
            error: The driver's exception.
        """
        if isinstance(error.__cause__, DeadlineExceeded):
            return
        reason = self.exceeded() or self._silence(error)
        if reason is not None:
            reason.__cause__ = error.__cause__
            error.__cause__ = reason

    def _silence(self, error: BaseException) -> TimeoutError | None:
        """Name the keep-alives, where they have ended the connection.

        The kernel gives up what it has sent only after a quarter of an hour.
        """
        socket = self.socket
        if socket is None or not _is_silence(error):
            return None
        kept = socket.kept_alive
        if kept is None:
            return None
        idle, interval, count = kept
        also = self.owner.settings.tcp_user_timeout
        or_also = "" if also is None else f" or tcp_user_timeout ({also:g} s)"
        return TimeoutError(
            f"the network was silent for about {idle + interval * count} s: "
            f"{_KEEP_ALIVES} ({idle} s, then {count} questions {interval} s apart) had "
            "no answer, and the system ended the connection; "
            f"keep_alive{or_also} sets how long that takes"
        )


def _is_silence(error: BaseException) -> bool:
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, TimeoutError) and _KEEP_ALIVES in str(inner):
            return False  # it has been said
        if isinstance(inner, OSError) and inner.errno == errno.ETIMEDOUT:
            return True
        inner = inner.__cause__
    return isinstance(error, Exception) and _TIMED_OUT in str(error)
