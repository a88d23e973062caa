"""How long connecting may take, said to the driver in its own words.

There is no descriptor before a driver has connected, so the watchdog cannot end this
call. Its bound goes into the driver's own option instead: libpq's `connect_timeout`,
which counts for each address by itself, and pg8000's `timeout`, which counts for each
step. By default that is what the user chose, or half a minute. A checkout's bound that
was chosen, and an enclosing `deadline`, shorten it to what is left, and never lengthen.

A libpq `service` may hold anything, and is left alone.
"""

from __future__ import annotations

import errno
import os
import socket
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import zip_longest
from time import monotonic
from typing import TYPE_CHECKING, Any

from poolproof.errors import DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextvars import Token

    from typing_extensions import Self

__all__ = ["PATIENCE_S", "Bound", "bound_connects", "unreadable", "unwatched"]

# libpq counts whole seconds and, before its version 17, takes 1 for 2.
_LIBPQ_LEAST_S = 2
# Of what is left, for libpq's whole seconds: what has passed since the checkout began
# does not cost a second.
_ROUNDED_UP_S = 0.1
# What each address gets where nothing was chosen, in seconds. A server that sleeps
# until it is asked takes longer to wake than a request may wait for a slot.
PATIENCE_S = 30
_LIBPQ_WITH_USER_TIMEOUT = 120_000
# 0 would tell a socket not to wait at all.
_PG8000_LEAST_S = 0.01
# As milliseconds it still fits a C integer.
_MOST_S = 1_000_000.0
# The number of a name's addresses, and until when that is taken for true: the driver
# looks the name up as well, and a name server is not to be asked twice each time.
_KNOWN_FOR_S = 30.0
_MOST_KNOWN = 1000
_known: dict[str, tuple[float, int]] = {}
# libpq's options that say how long it tries, and their environment variables.
_LIBPQ_OPTIONS = {
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "service": "PGSERVICE",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}
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
class _Plan:
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


def bound_connects(dialect: Any) -> None:
    """Have a dialect's `connect` keep to the `Bound` that it is called under.

    Idempotent; does nothing for drivers without a known option.

    Args:
        dialect: The dialect instance of one engine.
    """
    connect = getattr(dialect, "connect", None)
    plan = _PLANS.get(getattr(dialect, "driver", ""))
    if plan is None or connect is None or getattr(connect, "is_bounded", False):
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
    plan: _Plan, dbapi: Any, connect: Callable[..., Any], args: tuple[Any, ...]
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
        raise dbapi.InterfaceError(f"network error: {error}") from reason


def _ran_out(error: BaseException, late: bool) -> bool:
    """Say whether a connect failed for want of time."""
    text = str(error)
    if late or any(words in text for words in _RAN_OUT):
        return True
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, TimeoutError):
        inner = inner.__cause__
    return inner is not None


# --- libpq --------------------------------------------------------------------------


def _psycopg2_plan(
    dbapi: Any, bound: Bound, args: tuple[Any, ...], keywords: dict[str, Any]
) -> _Plan | None:
    text = args[0] if args else keywords.get("dsn")
    given = dbapi.extensions.parse_dsn(text) if text else {}
    version = _version(getattr(dbapi, "extensions", None), "libpq_version")
    return _libpq_plan({**given, **_given(keywords)}, bound, keywords, version)


def _psycopg_plan(
    dbapi: Any, bound: Bound, args: tuple[Any, ...], keywords: dict[str, Any]
) -> _Plan | None:
    text = args[0] if args else keywords.get("conninfo")
    given = dbapi.conninfo.conninfo_to_dict(text) if text else {}
    version = _version(getattr(dbapi, "pq", None), "version")
    return _libpq_plan({**given, **_given(keywords)}, bound, keywords, version)


def _version(owner: Any, name: str) -> int:
    """Ask for libpq's version; 0 where nobody says it, or not as a number (a mock)."""
    found = getattr(owner, name, int)()
    return found if isinstance(found, int) else 0


def _given(keywords: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in keywords.items() if value is not None}


def _libpq_plan(
    given: Mapping[str, Any], bound: Bound, keywords: dict[str, Any], version: int
) -> _Plan | None:
    """Bound each of the addresses that libpq would try, one by one."""
    options = {
        name: str(given.get(name, os.environ.get(variable, "")))
        for name, variable in _LIBPQ_OPTIONS.items()
    }
    if options["service"]:
        return None
    try:
        chosen = int(float(options["connect_timeout"] or 0))
    except ValueError:
        return None  # it is the driver's to refuse
    count = sum(
        1 if number else _count_addresses(host)
        for host, number in zip_longest(
            options["host"].split(","), options["hostaddr"].split(","), fillvalue=""
        )
    )
    if options["target_session_attrs"] == "prefer-standby":
        count *= 2  # the second round takes whoever is there
    share = None if options["connect_timeout"] else bound.patience
    if bound.due is not None:
        left = max(_LIBPQ_LEAST_S, int(_left(bound.due) / count + _ROUNDED_UP_S))
        share = left if share is None else min(share, left)
    told, limit, counts = dict(keywords), None, chosen
    if share is not None and not 0 < chosen <= share:
        told["connect_timeout"] = counts = share
        limit = float(share * count)
    lends = (
        counts > 0
        and "tcp_user_timeout" not in given
        and version >= _LIBPQ_WITH_USER_TIMEOUT
    )
    if lends:
        told["tcp_user_timeout"] = counts * 1000
    return _Plan(told, limit, lends)


def _count_addresses(host: str) -> int:
    """Say how many addresses a name has; unix sockets and unknown names count as 1."""
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


def _left(due: float) -> float:
    return min(_MOST_S, due - monotonic())


# --- pg8000 -------------------------------------------------------------------------


def _pg8000_plan(
    _dbapi: Any, bound: Bound, args: tuple[Any, ...], keywords: dict[str, Any]
) -> _Plan | None:
    chosen = keywords.get("timeout")
    if args or keywords.get("sock") is not None:
        return None
    if chosen is not None and not isinstance(chosen, (int, float)):
        return None  # it is the driver's to refuse
    local = keywords.get("unix_sock") is not None
    count = 1 if local else _count_addresses(str(keywords.get("host", "localhost")))
    share: float | None = bound.patience if chosen is None else None
    if bound.due is not None:
        left = round(max(_PG8000_LEAST_S, _left(bound.due) / count), 3)
        share = left if share is None else min(share, left)
    if share is None or (chosen is not None and chosen <= share):
        return _Plan(keywords, None)

    def afterwards(connection: Any) -> None:
        connection._usock.settimeout(chosen)

    return _Plan({**keywords, "timeout": share}, share * count, afterwards=afterwards)


_PLANS = {
    "psycopg2": _psycopg2_plan,
    "psycopg": _psycopg_plan,
    "pg8000": _pg8000_plan,
}


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
