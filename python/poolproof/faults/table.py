"""What an error means, and what it costs.

The rows stand in the Rust core (``src/fault/rows.rs``) and on the page "Faults" of the
documents; `register` adds rows of one's own, and `classify` shows what all of them say
about one exception.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypedDict, cast, get_args

from poolproof import _native
from poolproof.faults.error_info import (
    ErrorInfo,
    Phase,
    ReadOnly,
    driver_named,
    named,
    phase_of,
    read,
    unwrap,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Unpack

__all__ = ["Cost", "Fault", "Outcome", "Retry", "Verdict", "classify", "register"]

Cost = Literal["nothing", "connection", "generation"]
Retry = Literal["never", "reconnect", "whole_unit"]
Outcome = Literal["not_done", "done", "unknown"]

_SQLSTATE = re.compile("[0-9A-Z]{2}(?:[0-9A-Z]{3})?")
_CLASS_PATH = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)+")


class Fault(str, Enum):
    """The named kinds of fault."""

    NONE = "none"
    CORRUPTION = "corruption"
    SUSPECT = "suspect"
    INTERRUPTED = "interrupted"
    FORKED = "forked"
    TERMINATED = "terminated"
    SHUTDOWN = "shutdown"
    CONNECTION_LOST = "connection_lost"
    READ_ONLY = "read_only"
    UNREACHABLE = "unreachable"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    STARTING_UP = "starting_up"
    POOLER = "pooler"
    SERIALIZATION = "serialization"
    DEADLOCK = "deadlock"
    LOCK_TIMEOUT = "lock_timeout"
    CANCELLED = "cancelled"
    POOL_TIMEOUT = "pool_timeout"

    def __str__(self) -> str:
        """Return the name that logs and documents use."""
        return self.value


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an error means and costs.

    Attributes:
        fault: What it means; `Fault.NONE` for an ordinary error.
        cost: What is discarded: nothing, the connection that it came from, or the
            whole generation (every connection opened before now).
        retry: What may be repeated: nothing, connecting (nothing was sent yet), or the
            whole unit of work from its beginning.
        outcome: What became of the transaction: not done, done, or unknown.
        cause: The cause in words, never the driver's message.
    """

    fault: Fault
    cost: Cost
    retry: Retry
    outcome: Outcome
    cause: str

    def __post_init__(self) -> None:
        """Refuse what is no verdict.

        Raises:
            ValueError: A value that its attribute does not have.
        """
        for name, allowed in (
            ("fault", tuple(Fault)),
            ("cost", get_args(Cost)),
            ("retry", get_args(Retry)),
            ("outcome", get_args(Outcome)),
        ):
            value = getattr(self, name)
            if value not in allowed:
                msg = f"{name} is one of {_listed(allowed)}, not {value!r}"
                raise ValueError(msg)


# No lock: one step on a dict is atomic, and a lock that another thread held at a fork
# would stay locked in the child for ever.
_own: dict[object, _native.OwnRow] = {}


def register(
    fault: Fault,
    *,
    sqlstate: str | None = None,
    message: str | None = None,
    exception: type[BaseException] | str | None = None,
    driver: str | None = None,
    cause: str = "a row of the application's own",
) -> Callable[[], None]:
    """Add a row to the fault table, for this process and its children.

    All conditions of a row must hold. Rows of one's own are looked at before the
    built-in ones, and the newest first. What a fault costs does not change: choose the
    fault that costs what it should, or decide case by case with `poolproof.on_fault`.

    Args:
        fault: What the error means; `Fault.NONE` makes it an ordinary error.
        sqlstate: Five characters, or the two of a class of SQLSTATEs.
        message: What the first line of the driver's message, or the line of a failed
            connection attempt, contains outside of double quotes. It is looked at
            where the error has no SQLSTATE, or *sqlstate* is given as well.
        exception: A class of exceptions, or its name with its module such as
            ``"rq.timeouts.JobTimeoutException"``; its subclasses count. With
            `Fault.INTERRUPTED` it is found as well where the driver hides it behind an
            error of its own.
        driver: Only errors of this driver, such as ``"psycopg"``. SQLSTATEs and
            messages of a driver that is not one of PostgreSQL's count only so.
        cause: The cause in words, for logs and `Verdict.cause`; one line.

    Returns:
        A function that takes the row out again; calling it again does nothing.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: No condition, or one that cannot hold or always does.
    """
    if not isinstance(fault, Fault):
        msg = f"register needs a Fault, not {fault!r}"  # type: ignore[unreachable]  # callers without types
        raise TypeError(msg)
    for name, text in (
        ("sqlstate", sqlstate),
        ("message", message),
        ("driver", driver),
        ("cause", cause),
    ):
        known: object = text
        if not isinstance(known, str) and (known is not None or name == "cause"):
            msg = f"{name} is a text, not {known!r}"
            raise TypeError(msg)
        if text is not None and (not text.strip() or len(text.splitlines()) != 1):
            msg = f"{name} is one line that is not empty, not {text!r}"
            raise ValueError(msg)
    if sqlstate is None and message is None and exception is None:
        msg = "a row needs a sqlstate, a message or an exception to be recognised by"
        raise ValueError(msg)
    if sqlstate is not None and not _SQLSTATE.fullmatch(sqlstate):
        msg = (
            "sqlstate is five digits and capital letters, or the first two for a "
            f"class, not {sqlstate!r}"
        )
        raise ValueError(msg)
    kind = None if exception is None else _class_path(exception)
    if kind in {"builtins.BaseException", "builtins.Exception"}:
        msg = f"every error is a {kind}: name a narrower class"
        raise ValueError(msg)
    key = object()
    _own[key] = _native.OwnRow(
        fault=fault.value,
        sqlstate=sqlstate,
        message=None if message is None else _text(message),
        exception=kind,
        driver=None if driver is None else driver_named(driver.strip()),
        cause=cause.strip(),
    )

    def remove() -> None:
        _own.pop(key, None)

    return remove


def _class_path(exception: object) -> str:
    if isinstance(exception, type) and issubclass(exception, BaseException):
        return named(exception)
    if not isinstance(exception, str):
        msg = f"exception is a class of exceptions or its name, not {exception!r}"
        raise TypeError(msg)
    if not _CLASS_PATH.fullmatch(exception):
        msg = (
            "exception is the name of a class with its module, such as "
            f"'builtins.TimeoutError', not {exception!r}"
        )
        raise ValueError(msg)
    return exception


def _text(message: str) -> str:
    text = _native.fault_text(message)
    if not text.strip('" '):
        msg = (
            "message needs words outside of double quotes, where the application's "
            f"own words stand, not {message!r}"
        )
        raise ValueError(msg)
    return text


def _listed(values: tuple[str, ...]) -> str:
    return ", ".join(repr(str(value)) for value in values)


def classify(error: BaseException) -> Verdict:
    """Say what an exception means and costs.

    Args:
        error: An exception of SQLAlchemy, or of a driver itself.

    Returns:
        The verdict on a `poolproof.Pool`. Without the connection at hand it is careful:
        what may have struck a commit has an unknown outcome.

    Raises:
        TypeError: *error* is not an exception.
    """
    if not isinstance(error, BaseException):
        msg = f"classify needs an exception, not {error!r}"  # type: ignore[unreachable]  # callers without types
        raise TypeError(msg)
    original = unwrap(error)
    statement = getattr(error, "statement", None)
    return judge(
        read(original),
        phase=phase_of(original, statement, autocommit=None),
        disconnect=getattr(error, "connection_invalidated", False) is True,
    )


class Circumstances(TypedDict, total=False):
    """What is known of an error beside the exception; what is left out is not known.

    Attributes:
        phase: What was being done.
        read_only: Who made the transaction read-only.
        closed: Whether the driver says that the connection is closed or broken.
        busy: Whether the driver says that it is in the middle of a command.
        disconnect: Whether SQLAlchemy has taken it for a disconnect.
        sees_sockets: Whether the pool looks at sockets before it hands them on; it
            does where nothing is said.
    """

    phase: Phase
    read_only: ReadOnly
    closed: bool
    busy: bool
    disconnect: bool
    sees_sockets: bool


def judge(info: ErrorInfo, **known: Unpack[Circumstances]) -> Verdict:
    """Look an error up in the table.

    Args:
        info: What the exception says about itself.
        known: Its `Circumstances`.
    """
    return _verdict(look_up(info, **known))


def _verdict(found: _native.Finding, cause: str | None = None) -> Verdict:
    cause = found.cause if cause is None else cause
    return _made(found.fault, found.cost, found.retry, found.outcome, cause)


@lru_cache(maxsize=256)
def _made(fault: str, cost: str, retry: str, outcome: str, cause: str) -> Verdict:
    """Make a verdict, once: it never changes, and checks itself."""
    return Verdict(
        fault=Fault(fault),
        cost=cast("Cost", cost),
        retry=cast("Retry", retry),
        outcome=cast("Outcome", outcome),
        cause=cause,
    )


def look_up(info: ErrorInfo, **known: Unpack[Circumstances]) -> _native.Finding:
    """Ask the core; see `judge`.

    Returns:
        What it says, and the number of the built-in row that held, if one did.
    """
    return _native.classify(
        sqlstate=info.sqlstate,
        message=info.message,
        classes=info.classes,
        masked=info.masked,
        driver=info.driver,
        dbapi=info.dbapi,
        frames=info.frames,
        by_driver=info.by_driver,
        interruption=info.interruption,
        deadline=info.deadline,
        survived=info.survived,
        phase=known.get("phase", "unknown"),
        read_only=known.get("read_only", "unknown"),
        closed=known.get("closed", False),
        busy=known.get("busy", False),
        disconnect=known.get("disconnect", False),
        sees_sockets=known.get("sees_sockets", True),
        own=[*reversed(_own.values())],
    )


def appraise(
    fault: Fault,
    *,
    cause: str | None = None,
    phase: Phase = "unknown",
    sees_sockets: bool = True,
) -> Verdict:
    """Say what a fault costs that was seen without an error.

    Args:
        fault: What it means.
        cause: The cause in words; None is the fault's own sentence.
        phase: What was being done; ``"ping"`` for a connection that nobody uses.
        sees_sockets: Whether the pool looks at sockets before it hands them on.
    """
    found = _native.fault_price(fault.value, phase=phase, sees_sockets=sees_sockets)
    return _verdict(found, cause)
