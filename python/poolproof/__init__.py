"""A PostgreSQL connection pool for SQLAlchemy that survives forks.

`create_engine(url, poolclass=poolproof.Pool)` is all there is to do.
"""

from __future__ import annotations

# First: Ctrl-C ends the command also while it imports the rest. These refuse an
# interpreter and a SQLAlchemy that the pool cannot stand on.
from poolproof import _startup as _startup

from poolproof import _sqlalchemy as _sqlalchemy  # isort: skip
from poolproof._native import __version__
from poolproof.errors import (
    BreakerOpen,
    CommitOutcomeUnknown,
    ConnectionForked,
    ControlError,
    DeadlineExceeded,
    Holder,
    LeaseError,
    LeaseForked,
    LeaseLost,
    LeaseTimeout,
    NestedCheckout,
    PoolTimeout,
    TooManyWaiting,
)
from poolproof.faults.events import FaultEvent, on_fault
from poolproof.faults.guard import guard
from poolproof.faults.journal import (
    JournalEvent,
    journal,
    write_journal,
    write_journal_at,
)
from poolproof.faults.table import Fault, Verdict, classify
from poolproof.fork.renewal import after_fork
from poolproof.leases.async_heartbeat import AsyncHeartbeat
from poolproof.leases.async_lease import AsyncLease
from poolproof.leases.heartbeat import Heartbeat
from poolproof.leases.lease import Lease
from poolproof.metrics import automatic as automatic
from poolproof.metrics.facts import PoolSnapshot, ProcessSnapshot
from poolproof.metrics.scope import scope
from poolproof.metrics.snapshot import snapshot
from poolproof.pool.async_pool import AsyncPool
from poolproof.pool.deadlines import deadline
from poolproof.pool.pool import Pool
from poolproof.pool.stats import PoolStats
from poolproof.retry.decorator import attempts, retry
from poolproof.retry.state import AttemptEvent, Backoff, on_attempt
from poolproof.retry.transaction import run_transaction, run_transaction_async

__all__ = [
    "AsyncHeartbeat",
    "AsyncLease",
    "AsyncPool",
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
    "JournalEvent",
    "Lease",
    "LeaseError",
    "LeaseForked",
    "LeaseLost",
    "LeaseTimeout",
    "NestedCheckout",
    "Pool",
    "PoolSnapshot",
    "PoolStats",
    "PoolTimeout",
    "ProcessSnapshot",
    "TooManyWaiting",
    "Verdict",
    "__version__",
    "after_fork",
    "attempts",
    "classify",
    "deadline",
    "guard",
    "journal",
    "on_attempt",
    "on_fault",
    "retry",
    "run_transaction",
    "run_transaction_async",
    "scope",
    "snapshot",
    "write_journal",
    "write_journal_at",
]
