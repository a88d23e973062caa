"""How long connecting may take, said to the driver in its own words.

There is no descriptor before a driver has connected, so the watchdog cannot end this
call. Its bound goes into the driver's own option instead: libpq's `connect_timeout`,
which counts for each address by itself, and pg8000's `timeout`, which counts for each
step. By default that is what the user chose, or half a minute. A chosen
`checkout_timeout`, and an enclosing `deadline`, shorten it to what is left, and never
lengthen it.

What a driver is told is its own part: `Driver.connect_plan`.
"""

from __future__ import annotations

import errno
import os
import socket
from contextvars import ContextVar
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from poolproof.errors import DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Token
    from typing import TypeAlias

    from typing_extensions import Self

    # Of a driver's module, the bound, and the arguments of its connect().
    Planner: TypeAlias = Callable[
        [Any, "Bound", tuple[Any, ...], dict[str, Any]], "ConnectPlan | None"
    ]

__all__ = [
    "PATIENCE_S",
    "Bound",
    "ConnectPlan",
    "bound_connects",
    "count_addresses",
    "left_until",
    "unreadable",
    "unwatched",
]

# What each address gets where nothing was chosen, in seconds. A server that sleeps
# until it is asked takes longer to wake than a request may wait for a slot.
PATIENCE_S = 30
# As milliseconds it still fits a C integer.
_MOST_S = 1_000_000.0
# The number of a name's addresses, and until when that is taken for true: the driver
# looks the name up as well, and a name server is not to be asked twice each time.
_KNOWN_FOR_S = 30.0
_MOST_KNOWN = 1000
_known: dict[str, tuple[float, int]] = {}
# What the drivers say of a connect_timeout and of a TCP_USER_TIMEOUT that ran out.
_RAN_OUT = ("timeout expired", os.strerror(errno.ETIMEDOUT))


class Bound:
    """The instant by which a pool must have connected, while it does so.

    Attributes:
        due: On the monotonic clock; None for no bound.
        patience: What each address gets where the user has told the driver nothing, in
            seconds; None for no bound.
        user_timeout_lent: Whether the new socket has a ``TCP_USER_TIMEOUT`` that is
            meant for the connecting alone.
    """

    __slots__ = ("_token", "due", "patience", "user_timeout_lent")

    def __init__(self, due: float | None, patience: int | None = None) -> None:
        """Choose the instant, and what holds before it."""
        self.due = due
        self.patience = patience
        self.user_timeout_lent = False
        self._token: Token[Bound | None] | None = None

    def __enter__(self) -> Self:
        """Let it count for what this context connects."""
        self._token = _current.set(self)
        return self

    def __exit__(self, *_error: object) -> None:
        """Let the outer one count again."""
        if self._token is not None:
            _current.reset(self._token)


_current: ContextVar[Bound | None] = ContextVar("poolproof_connecting", default=None)


@dataclass(frozen=True, slots=True)
class ConnectPlan:
    """What the driver is told.

    Attributes:
        keywords: Its arguments.
        limit: What it may take in all, in seconds, where that is ours to say.
        lends_user_timeout: Whether a ``TCP_USER_TIMEOUT`` is among them.
        afterwards: Takes back from the connection what would stay.
    """

    keywords: dict[str, Any]
    limit: float | None
    lends_user_timeout: bool = False
    afterwards: Callable[[Any], None] | None = None


def bound_connects(dialect: Any, plan: Planner) -> None:
    """Have a dialect's `connect` keep to the `Bound` that it is called under.

    Idempotent.

    Args:
        dialect: The dialect instance of one engine.
        plan: Its driver's `connect_plan`.
    """
    connect = getattr(dialect, "connect", None)
    if connect is None or getattr(connect, "is_bounded", False):
        return

    def bounded(*args: Any, **keywords: Any) -> Any:
        bound = _current.get()
        if bound is None or (bound.due is None and bound.patience is None):
            return connect(*args, **keywords)
        planned = plan(dialect.dbapi, bound, args, keywords)
        if planned is None:
            return connect(*args, **keywords)
        connection = _connect_within(planned, dialect.dbapi, connect, args)
        bound.user_timeout_lent = planned.lends_user_timeout
        if planned.afterwards is not None:
            planned.afterwards(connection)
        return connection

    bounded.is_bounded = True  # type: ignore[attr-defined]
    dialect.connect = bounded


def _connect_within(
    plan: ConnectPlan, dbapi: Any, connect: Callable[..., Any], args: tuple[Any, ...]
) -> Any:
    """Connect, and give an error that the bound led to its reason."""
    began = monotonic()
    try:
        return connect(*args, **plan.keywords)
    except Exception as error:
        if plan.limit is None or not _ran_out(error, monotonic() - began >= plan.limit):
            raise
        reason = DeadlineExceeded("connect", round(plan.limit, 3))
        if isinstance(error, dbapi.Error):
            reason.__cause__ = error.__cause__
            error.__cause__ = reason
            raise
        # pg8000 lets the socket's own error through; SQLAlchemy asks about drivers'.
        reason.__cause__ = error
        said = str(error) or type(error).__name__  # a TimeoutError says nothing
        raise dbapi.InterfaceError(f"network error: {said}") from reason


def _ran_out(error: BaseException, late: bool) -> bool:
    """Say whether a connect failed for want of time."""
    text = str(error)
    if late or any(words in text for words in _RAN_OUT):
        return True
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, TimeoutError):
        inner = inner.__cause__
    return inner is not None


def count_addresses(host: str) -> int:
    """Say how many addresses a name has.

    Args:
        host: A name, an address, or a unix socket's directory.

    Returns:
        1 or more; unix sockets and unknown names count as 1.
    """
    if not host or host[0] in "/@":
        return 1
    now = monotonic()
    until, count = _known.get(host, (0.0, 1))
    if until <= now:
        count = _look_up(host)
        if len(_known) > _MOST_KNOWN:
            _known.clear()
        _known[host] = (now + _KNOWN_FOR_S, count)
    return count


def _look_up(host: str) -> int:
    try:
        # As bytes: a text goes through a codec that is imported at its first use, and a
        # child that was forked meanwhile would wait for that for ever.
        name = host.encode() if host.isascii() else host
        return len(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)) or 1
    except (OSError, UnicodeError):
        return 1


def left_until(due: float) -> float:
    """Say how long there is until an instant, as far as a C integer can hold it.

    Args:
        due: On the monotonic clock.

    Returns:
        Seconds; below 0 when it has passed.
    """
    return min(_MOST_S, due - monotonic())


def unreadable(kind: str, dialect: Any) -> Exception:
    """Make the error of a parameter of connecting that is not text as it must be.

    What the driver raises holds the whole of it: a password, or a file of passwords.

    Args:
        kind: The class of the driver's error.
        dialect: The dialect.
    """
    return _as_the_driver(
        f"a parameter of connecting cannot be encoded or decoded ({kind}); it is not "
        "shown, since it may be a secret: look for a character that is not UTF-8 in "
        "the password, the user, the URL, PGPASSWORD or the password file",
        dialect,
    )


def unwatched(error: OSError, dialect: Any) -> Exception:
    """Make the error of a new connection that nothing can watch over.

    Args:
        error: What the system says when it has no thread or descriptor to give.
        dialect: The dialect.
    """
    return _as_the_driver(
        "the connection was opened and closed again, since its deadlines need a thread "
        f"and a descriptor, and the system gives none now ({error}): raise the limits "
        "of processes and of open files (ulimit -u, ulimit -n, a container's pids), or "
        "run fewer",
        dialect,
    )


def _as_the_driver(text: str, dialect: Any) -> Exception:
    """Have SQLAlchemy wrap an error as those of the driver."""
    dbapi: Any = getattr(dialect, "dbapi", None)
    made: Exception = getattr(dbapi, "OperationalError", ConnectionError)(text)
    return made
