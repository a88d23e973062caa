"""What a snapshot holds: plain facts, frozen."""

from __future__ import annotations

import dataclasses

__all__ = [
    "Checkout",
    "HostShares",
    "Leases",
    "OtherPool",
    "PoolCounts",
    "PoolSnapshot",
    "ProcessSnapshot",
    "Times",
]


@dataclasses.dataclass(frozen=True, slots=True)
class Times:
    """How long something took, over the life of the pool in this process.

    Quantiles are right within an eighth.

    Attributes:
        count: How often it was done.
        sum_s: Of all together, in seconds.
        p50_s: What half of them did not exceed, in seconds; None where there was none.
        p95_s: The same of 95 of 100.
        p99_s: The same of 99 of 100.
        max_s: The longest, in seconds; 0 where there was none.
        buckets: How many took so many seconds at most, by that number: 0 (no time at
            all), then 0.1 ms to 30 s.
    """

    count: int
    sum_s: float
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    max_s: float
    buckets: dict[float, int]


@dataclasses.dataclass(frozen=True, slots=True)
class Checkout:
    """One connection that a caller has.

    Attributes:
        thread: The name of the thread that checked it out, with the task's before it.
        scope: The `poolproof.scope` that it was checked out in; None for none.
        backend_pid: The server's process id of the session, when it is known.
        held_s: For how long it has been held, in seconds.
        is_busy: Whether a statement is under way, as the driver says without being
            disturbed; None where it does not say.
    """

    thread: str
    scope: str | None
    backend_pid: int | None
    held_s: float
    is_busy: bool | None


@dataclasses.dataclass(frozen=True, slots=True)
class Leases:
    """The leases of this process.

    Attributes:
        held: How many it holds.
        left_s: For how long the one that ends first is certain, in seconds; None where
            none is held.
        renewals: Renewals that were granted, those of leases that are over included.
        lost: Leases that were lost, and not given back.
    """

    held: int
    left_s: float | None
    renewals: int
    lost: int


@dataclasses.dataclass(frozen=True, slots=True)
class HostShares:
    """Who has the connections of a host's budget.

    Attributes:
        name: What the budget is called.
        most: Connections that there may be.
        own: Those of this pool.
        held: Those of each process, by its number, most first; 0 is one that cannot be
            seen from here (in another container).
        waiting: Callers that wait for one, in the same way.
    """

    name: str
    most: int
    own: int
    held: dict[int, int]
    waiting: dict[int, int]


@dataclasses.dataclass(frozen=True, slots=True)
class PoolCounts:
    """What was counted under the name of a pool, of its whole life in this process.

    That is beyond `Engine.dispose`, and beyond the pool itself. A child begins with
    none.

    Attributes:
        name: What the pool is called in messages; ``"other"`` for all that are gone and
            whose names are too many to be kept.
        checkouts: Checkouts, by whether the caller had to wait for a slot.
        timeouts: Checkouts whose time was over, by what it was spent on: ``"slot"``,
            ``"connect"``, ``"breaker"``, ``"queue_full"``,
            ``"host_budget"``, ``"deadline"``.
        connects: Attempts to connect, by outcome: ``"ok"``, ``"failed"``.
        discarded: Connections discarded, by reason.
        deadlines: Connections whose socket the watchdog has shut, by step.
        pings: Questions whether a connection is at rest, by outcome.
        faults: Faults, by fault and then by cost.
        transactions: Units of `run_transaction`, by outcome: ``"done"``,
            ``"not_done"``, ``"unknown"``.
        retries: Those that took more than one attempt, by outcome.
        stranded: Backends that were left behind, by what became of them.
        wait: Waits for a slot, of callers who got a connection.
        lag: How late loops have let tasks go on that had been lent a slot; it is no
            part of `wait`. None where no task has waited for one.
        connect: Opening a connection.
        ping: Asking whether one is at rest.
        hold: Checkouts, until the connection came back.
        hold_by_scope: The same by scope, without quantiles; ``""`` is none.
    """

    name: str
    checkouts: dict[bool, int]
    timeouts: dict[str, int]
    connects: dict[str, int]
    discarded: dict[str, int]
    deadlines: dict[str, int]
    pings: dict[str, int]
    faults: dict[str, dict[str, int]]
    transactions: dict[str, int]
    retries: dict[str, int]
    stranded: dict[str, int]
    wait: Times
    lag: Times | None
    connect: Times
    ping: Times
    hold: Times
    hold_by_scope: dict[str, Times]


@dataclasses.dataclass(frozen=True, slots=True)
class PoolSnapshot(PoolCounts):
    """What one pool is in this process, beside what it has counted.

    Attributes:
        pool_class: The name of its class.
        driver: The driver's name.
        database: The database's name, where the driver is told one.
        host: The server's host, in the same way.
        port: The server's port, in the same way.
        size: Connections kept (`pool_size`); 0 is without bound.
        max_overflow: Connections allowed beyond `size`; -1 is without bound.
        min_idle: Connections kept ready.
        idle: Connections at rest.
        used: Slots in use, those that are opened or closed included.
        waiting: Callers waiting for a slot.
        newest_first: Whether the newest of them are served first.
        oldest_wait_s: For how long the first of them has waited, in seconds; None where
            nobody waits.
        oldest_hold_s: For how long the longest holder has held, in seconds; None where
            nothing is held.
        held_idle: Connections that have been held for more than 1 s and on which no
            statement is under way now.
        host_budget: The budget of the host that it keeps to, with `host_budget`.
        connect_failures: Attempts to connect that have failed in a row.
        breaker_open: Whether callers who need a new connection are refused at once.
        holders: Who has a connection, longest first.
        generation: Forks between the start of the program and this process.
    """

    pool_class: str
    driver: str
    database: str | None
    host: str | None
    port: int | None
    size: int
    max_overflow: int
    min_idle: int
    idle: int
    used: int
    waiting: int
    newest_first: bool
    oldest_wait_s: float | None
    oldest_hold_s: float | None
    held_idle: int
    host_budget: HostShares | None
    connect_failures: int
    breaker_open: bool
    holders: tuple[Checkout, ...]
    generation: int


@dataclasses.dataclass(frozen=True, slots=True)
class OtherPool:
    """What is counted of a pool of another class, and of what belongs to no pool.

    Attributes:
        name: The pool's `logging_name`, or its class; nothing for no pool.
        faults: Faults, by fault and then by cost.
        transactions: Units of `run_transaction`, by outcome.
        retries: Those that took more than one attempt, by outcome.
    """

    name: str
    faults: dict[str, dict[str, int]]
    transactions: dict[str, int]
    retries: dict[str, int]


@dataclasses.dataclass(frozen=True, slots=True)
class ProcessSnapshot:
    """All pools of a process, and what belongs to none of them.

    Attributes:
        process_id: The process.
        version: Of poolproof.
        sqlalchemy: The version of SQLAlchemy.
        generation: Forks between the start of the program and this process.
        is_main: Whether it forks those that work, and does no work of its own:
            Gunicorn's master, the parent of Celery's processes.
        severed_sockets: Inherited sockets that were severed when it was forked.
        leases: Its leases.
        pools: Its pools, one for each name: a pool and those that it has replaced
            (`Engine.dispose`) are one.
        gone: What was counted under names that no pool has now.
        others: What is counted of pools of other classes.
    """

    process_id: int
    version: str
    sqlalchemy: str
    generation: int
    is_main: bool
    severed_sockets: int
    leases: Leases
    pools: tuple[PoolSnapshot, ...]
    gone: tuple[PoolCounts, ...]
    others: tuple[OtherPool, ...]
