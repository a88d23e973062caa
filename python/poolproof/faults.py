"""What an error means, and what it costs.

The rows stand in the Rust core (``src/fault/rows.rs``) and on the page "Faults" of the
documents; `classify` shows what they say about one exception.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal, cast

from poolproof import _native
from poolproof._signal import Phase, ReadOnly, Signal, phase_of, read, unwrap

__all__ = ["Cost", "Fault", "Outcome", "Retry", "Verdict", "classify"]

Cost = Literal["nothing", "connection", "generation"]
Retry = Literal["never", "reconnect", "whole_unit"]
Outcome = Literal["not_done", "done", "unknown"]


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


def judge(
    signal: Signal,
    *,
    phase: Phase = "unknown",
    read_only: ReadOnly = "unknown",
    closed: bool = False,
    disconnect: bool = False,
    sees_sockets: bool = True,
) -> Verdict:
    """Look an error up in the table.

    Args:
        signal: What the exception says about itself.
        phase: What was being done.
        read_only: Who made the transaction read-only.
        closed: Whether the driver says that the connection is closed or broken.
        disconnect: Whether SQLAlchemy has taken it for a disconnect.
        sees_sockets: Whether the pool looks at sockets before it hands them on.
    """
    fault, cost, retry, outcome, cause = _native.classify(
        sqlstate=signal.sqlstate,
        message=signal.message,
        classes=signal.classes,
        driver=signal.driver,
        dbapi=signal.dbapi,
        frames=signal.frames,
        by_driver=signal.by_driver,
        interruption=signal.interruption,
        phase=phase,
        read_only=read_only,
        closed=closed,
        disconnect=disconnect,
        sees_sockets=sees_sockets,
    )
    return Verdict(
        fault=Fault(fault),
        cost=cast("Cost", cost),
        retry=cast("Retry", retry),
        outcome=cast("Outcome", outcome),
        cause=cause,
    )
