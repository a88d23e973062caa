"""A PostgreSQL connection pool for SQLAlchemy that survives forks.

`create_engine(url, poolclass=poolproof.Pool)` is all there is to do.
"""

from __future__ import annotations

# First: Ctrl-C ends the command also while it imports the rest.
from poolproof import _as_command as _as_command

# Then: they refuse an interpreter and a SQLAlchemy that the pool cannot stand on.
from poolproof import _interpreter as _interpreter
from poolproof import _sqlalchemy as _sqlalchemy
from poolproof._native import __version__
from poolproof.async_heartbeat import AsyncHeartbeat
from poolproof.async_lease import AsyncLease
from poolproof.course import AttemptEvent, Backoff, on_attempt
from poolproof.deadlines import deadline
from poolproof.errors import (
    BreakerOpen,
    CommitOutcomeUnknown,
    ConnectionForked,
    ControlError,
    DeadlineExceeded,
    LeaseError,
    LeaseForked,
    LeaseLost,
    LeaseTimeout,
    NestedCheckout,
    PoolTimeout,
)
from poolproof.faults import Fault, Verdict, classify
from poolproof.fork import after_fork
from poolproof.guard import guard
from poolproof.heartbeat import Heartbeat
from poolproof.lease import Lease
from poolproof.observe import FaultEvent, on_fault
from poolproof.pool import Pool
from poolproof.retrying import attempts, retry
from poolproof.stats import Holder, PoolStats
from poolproof.transactions import run_transaction, run_transaction_async

__all__ = [
    "AsyncHeartbeat",
    "AsyncLease",
    "AttemptEvent",
    "Backoff",
    "BreakerOpen",
    "CommitOutcomeUnknown",
    "ConnectionForked",
    "ControlError",
    "DeadlineExceeded",
    "Fault",
    "FaultEvent",
    "Heartbeat",
    "Holder",
    "Lease",
    "LeaseError",
    "LeaseForked",
    "LeaseLost",
    "LeaseTimeout",
    "NestedCheckout",
    "Pool",
    "PoolStats",
    "PoolTimeout",
    "Verdict",
    "__version__",
    "after_fork",
    "attempts",
    "classify",
    "deadline",
    "guard",
    "on_attempt",
    "on_fault",
    "retry",
    "run_transaction",
    "run_transaction_async",
]
