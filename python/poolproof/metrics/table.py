"""The table of metrics: each one's names, and what it is read from.

Everything that exports metrics is made from it: `prometheus`, `otel`, `statsd`, the
page docs/metrics.md and the dashboard. A name that stands here is in all of them.

Long, because it is one table.
"""

from __future__ import annotations

import dataclasses
import operator
from typing import TYPE_CHECKING, Any, Literal

from poolproof._native import EXPORTED_BOUNDS
from poolproof.metrics.words import (
    CONNECTS,
    DISCARDED,
    FAULTS,
    PINGS,
    STEPS,
    STRANDED,
    TIMEOUTS,
    UNITS,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from poolproof.metrics.facts import (
        HostShares,
        OtherPool,
        PoolCounts,
        PoolSnapshot,
        ProcessSnapshot,
        Times,
    )

    Labels: TypeAlias = tuple[str, ...]
    Read: TypeAlias = Iterator[tuple[Labels, Any]]
    Samples: TypeAlias = dict[str, dict[Labels, Any]]

__all__ = [
    "BOUNDS",
    "COUNTED",
    "PREFIX",
    "TABLE",
    "Histogram",
    "Metric",
    "complete",
    "read",
]

PREFIX = "poolproof"

COUNTED = ("counter", "histogram")
"""The kinds of which a value never falls: they outlive their pool, and its process."""

# 0.1 ms to 30 s. What took no time at all is within the first.
BOUNDS: tuple[float, ...] = tuple(bound for bound in EXPORTED_BOUNDS if bound)


@dataclasses.dataclass(frozen=True, slots=True)
class Histogram:
    """The value of a histogram.

    Attributes:
        up_to: How many took up to each of `BOUNDS`, and then how many there were.
        sum_s: Of all together, in seconds.
    """

    up_to: tuple[int, ...]
    sum_s: float

    @property
    def count(self) -> int:
        """How many there were."""
        return self.up_to[-1]

    def __add__(self, other: Histogram) -> Histogram:
        """Take both together."""
        up_to = tuple(map(operator.add, self.up_to, other.up_to))
        return Histogram(up_to, self.sum_s + other.sum_s)

    @classmethod
    def of(cls, times: Times) -> Histogram:
        """Make one of a snapshot's.

        Args:
            times: The snapshot's.
        """
        up_to = (times.buckets[bound] for bound in BOUNDS)
        return cls((*up_to, times.count), times.sum_s)


@dataclasses.dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: In Prometheus, behind ``poolproof_``; a counter has ``_total`` at its end.
        kind: What it is in Prometheus.
        otel: Its name in OpenTelemetry.
        unit: Its unit in OpenTelemetry.
        about: What it says, in one line.
        labels: Its labels, behind ``pool`` where it is of pools.
        reads: Reads it from a pool, or from the process: values by label values.
        of: What it is read from.
        across: How values of several processes become one.
        known: The values that its labels behind ``pool`` are known to have. Each pool
            has them from its beginning, with 0.
    """

    name: str
    kind: Literal["gauge", "counter", "histogram", "info"]
    otel: str
    unit: str
    about: str
    labels: Labels
    reads: Callable[[Any], Read]
    of: Literal["pool", "process"] = "pool"
    across: Literal["sum", "max", "min"] = "sum"
    known: tuple[Labels, ...] = ()

    @property
    def full_name(self) -> str:
        """Its name in Prometheus."""
        return f"{PREFIX}_{self.name}"

    @property
    def every_label(self) -> Labels:
        """The names of its labels."""
        return ("pool", *self.labels) if self.of == "pool" else self.labels

    @property
    def instrument(self) -> str:
        """What it is in OpenTelemetry: a gauge that may be added up is no gauge."""
        if self.kind == "gauge" and self.across == "sum":
            return "up_down_counter"
        return "gauge" if self.kind == "info" else self.kind

    def together(self, one: Any, other: Any) -> Any:
        """Make one value of two processes'.

        Args:
            one: One's.
            other: The other's.
        """
        if self.across == "sum":
            return one + other
        return max(one, other) if self.across == "max" else min(one, other)


def _one(take: Callable[[Any], float | None]) -> Callable[[Any], Read]:
    """Read one value, where there is one."""

    def reads(found: Any) -> Read:
        value = take(found)
        if value is not None:
            yield (), value

    return reads


def _each(take: Callable[[Any], dict[str, int]]) -> Callable[[Any], Read]:
    """Read a value for each word."""

    def reads(found: Any) -> Read:
        for word, value in take(found).items():
            yield (word,), value

    return reads


def _times(take: Callable[[PoolCounts], Times]) -> Callable[[Any], Read]:
    def reads(pool: PoolCounts) -> Read:
        yield (), Histogram.of(take(pool))

    return reads


def _lags(pool: PoolCounts) -> Read:
    if pool.lag is not None:
        yield (), Histogram.of(pool.lag)


def _states(pool: PoolSnapshot) -> Read:
    yield ("idle",), pool.idle
    yield ("used",), pool.used


def _most(pool: PoolSnapshot) -> int | None:
    unbounded = not pool.size or pool.max_overflow < 0
    return None if unbounded else pool.size + pool.max_overflow


def _budget(take: Callable[[HostShares], int]) -> Callable[[PoolSnapshot], Read]:
    def reads(pool: PoolSnapshot) -> Read:
        if pool.host_budget is not None:
            yield (pool.host_budget.name,), take(pool.host_budget)

    return reads


def _checkouts(pool: PoolCounts) -> Read:
    for waited, count in pool.checkouts.items():
        yield ("true" if waited else "false",), count


def _faults(pool: PoolCounts | OtherPool) -> Read:
    for fault, costs in pool.faults.items():
        for cost, count in costs.items():
            yield (fault, cost), count


def _holds(pool: PoolCounts) -> Read:
    for scope, times in pool.hold_by_scope.items():
        yield (scope,), Histogram.of(times)


def _roles(process: ProcessSnapshot) -> Read:
    yield ("main" if process.is_main else "worker",), 1


def _info(process: ProcessSnapshot) -> Read:
    for pool in process.pools:
        yield (
            (
                *(pool.name, process.version, pool.driver),
                *(process.sqlalchemy, pool.pool_class),
            ),
            1,
        )


_CONNECTION = "{connection}"
_OTEL = "db.client.connection"

TABLE: tuple[Metric, ...] = (
    Metric(
        "connections",
        "gauge",
        f"{_OTEL}.count",
        _CONNECTION,
        "Connections at rest (idle), and slots in use (used).",
        ("state",),
        _states,
    ),
    Metric(
        "connections_max",
        "gauge",
        f"{_OTEL}.max",
        _CONNECTION,
        "Connections that there may be; absent where there is no bound.",
        (),
        _one(_most),
    ),
    Metric(
        "connections_idle_max",
        "gauge",
        f"{_OTEL}.idle.max",
        _CONNECTION,
        "Connections that are kept when idle; absent where there is no bound.",
        (),
        _one(lambda pool: pool.size or None),
    ),
    Metric(
        "connections_idle_min",
        "gauge",
        f"{_OTEL}.idle.min",
        _CONNECTION,
        "Connections that are kept ready (min_idle).",
        (),
        _one(lambda pool: pool.min_idle),
    ),
    Metric(
        "waiting",
        "gauge",
        f"{_OTEL}.pending_requests",
        "{request}",
        "Callers that wait for a slot.",
        (),
        _one(lambda pool: pool.waiting),
    ),
    Metric(
        "host_budget_max",
        "gauge",
        "poolproof.host_budget.max",
        _CONNECTION,
        "Connections that all processes of the host may have together (host_budget); "
        "absent without one.",
        ("budget",),
        _budget(lambda budget: budget.most),
        across="max",
    ),
    Metric(
        "host_budget_used",
        "gauge",
        "poolproof.host_budget.used",
        _CONNECTION,
        "Those of them that all processes have.",
        ("budget",),
        _budget(lambda budget: sum(budget.held.values())),
        across="max",
    ),
    Metric(
        "host_budget_own",
        "gauge",
        "poolproof.host_budget.own",
        _CONNECTION,
        "Those of them that are this pool's.",
        ("budget",),
        _budget(lambda budget: budget.own),
    ),
    Metric(
        "host_budget_waiting",
        "gauge",
        "poolproof.host_budget.waiting",
        "{request}",
        "Callers of all processes that wait for one.",
        ("budget",),
        _budget(lambda budget: sum(budget.waiting.values())),
        across="max",
    ),
    Metric(
        "timeouts_total",
        "counter",
        f"{_OTEL}.timeouts",
        "{timeout}",
        "Checkouts whose time was over, by what it was spent on: slot, connect, "
        "breaker and queue_full (refused at once), host_budget, deadline.",
        ("reason",),
        _each(lambda pool: pool.timeouts),
        known=TIMEOUTS,
    ),
    Metric(
        "wait_seconds",
        "histogram",
        f"{_OTEL}.wait_time",
        "s",
        "Waits for a slot, of callers who got a connection.",
        (),
        _times(lambda pool: pool.wait),
    ),
    Metric(
        "loop_lag_seconds",
        "histogram",
        "poolproof.loop.lag",
        "s",
        "How late loops of asyncio have let tasks go on that had waited for a slot and "
        "been lent one; no part of the wait.",
        (),
        _lags,
    ),
    Metric(
        "connect_seconds",
        "histogram",
        f"{_OTEL}.create_time",
        "s",
        "Opening a connection.",
        (),
        _times(lambda pool: pool.connect),
    ),
    Metric(
        "hold_seconds",
        "histogram",
        f"{_OTEL}.use_time",
        "s",
        "Checkouts until the connection came back, by scope (nothing for none).",
        ("scope",),
        _holds,
        known=(("",),),
    ),
    Metric(
        "oldest_wait_seconds",
        "gauge",
        "poolproof.wait.oldest",
        "s",
        "For how long the first of those who wait has waited; 0 where nobody waits.",
        (),
        _one(lambda pool: pool.oldest_wait_s or 0.0),
        across="max",
    ),
    Metric(
        "oldest_hold_seconds",
        "gauge",
        "poolproof.hold.oldest",
        "s",
        "For how long the longest holder has held; 0 where nothing is held.",
        (),
        _one(lambda pool: pool.oldest_hold_s or 0.0),
        across="max",
    ),
    Metric(
        "held_idle",
        "gauge",
        "poolproof.hold.idle",
        _CONNECTION,
        "Connections held for more than 1 s on which no statement is under way.",
        (),
        _one(lambda pool: pool.held_idle),
    ),
    Metric(
        "checkouts_total",
        "counter",
        "poolproof.checkouts",
        "{checkout}",
        "Checkouts, by whether the caller had to wait for a slot.",
        ("waited",),
        _checkouts,
    ),
    Metric(
        "connects_total",
        "counter",
        "poolproof.connects",
        _CONNECTION,
        "Attempts to connect, by outcome: ok, failed.",
        ("outcome",),
        _each(lambda pool: pool.connects),
        known=CONNECTS,
    ),
    Metric(
        "discarded_total",
        "counter",
        "poolproof.discarded",
        _CONNECTION,
        "Connections discarded, by reason.",
        ("reason",),
        _each(lambda pool: pool.discarded),
        known=DISCARDED,
    ),
    Metric(
        "pings_total",
        "counter",
        "poolproof.pings",
        "{ping}",
        "Questions whether a connection is at rest, by outcome: ok, no_answer, "
        "wrong_answer.",
        ("outcome",),
        _each(lambda pool: pool.pings),
        known=PINGS,
    ),
    Metric(
        "ping_seconds",
        "histogram",
        "poolproof.ping.duration",
        "s",
        "Asking whether a connection is at rest.",
        (),
        _times(lambda pool: pool.ping),
    ),
    Metric(
        "faults_total",
        "counter",
        "poolproof.faults",
        "{fault}",
        "Faults, by what the error means and what it has cost.",
        ("fault", "cost"),
        _faults,
        known=FAULTS,
    ),
    Metric(
        "deadlines_total",
        "counter",
        "poolproof.deadlines",
        "{deadline}",
        "Connections whose socket the watchdog has shut, by the step that took too "
        "long.",
        ("step",),
        _each(lambda pool: pool.deadlines),
        known=STEPS,
    ),
    Metric(
        "connect_failures",
        "gauge",
        "poolproof.connect.failures",
        "1",
        "Attempts to connect that have failed in a row.",
        (),
        _one(lambda pool: pool.connect_failures),
        across="max",
    ),
    Metric(
        "breaker_open",
        "gauge",
        "poolproof.breaker.open",
        "1",
        "1 while callers who need a new connection are refused at once.",
        (),
        _one(lambda pool: int(pool.breaker_open)),
        across="max",
    ),
    Metric(
        "processes",
        "gauge",
        "poolproof.processes",
        "{process}",
        "Processes that these numbers are of, by role: worker, or main (it forks the "
        "workers: Gunicorn's master, Celery's parent).",
        ("role",),
        _roles,
        of="process",
    ),
    Metric(
        "severed_sockets_total",
        "counter",
        "poolproof.severed_sockets",
        "{socket}",
        "Inherited descriptors of connections that were severed when the process was "
        "forked; psycopg2 has two for each.",
        (),
        _one(lambda process: process.severed_sockets),
        of="process",
    ),
    Metric(
        "generation",
        "gauge",
        "poolproof.generation",
        "1",
        "Forks between the start of the program and the process.",
        (),
        _one(lambda process: process.generation),
        of="process",
        across="max",
    ),
    Metric(
        "transactions_total",
        "counter",
        "poolproof.transactions",
        "{transaction}",
        "Units of run_transaction, by outcome: done, not_done, unknown.",
        ("outcome",),
        _each(lambda pool: pool.transactions),
        known=UNITS,
    ),
    Metric(
        "retries_total",
        "counter",
        "poolproof.retries",
        "{transaction}",
        "Those of them that took more than one attempt, by outcome.",
        ("outcome",),
        _each(lambda pool: pool.retries),
        known=UNITS,
    ),
    Metric(
        "stranded_total",
        "counter",
        "poolproof.stranded",
        "{backend}",
        "Backends that discarded connections have left behind, by what became of them.",
        ("outcome",),
        _each(lambda pool: pool.stranded),
        known=STRANDED,
    ),
    Metric(
        "lease_held",
        "gauge",
        "poolproof.lease.held",
        "{lease}",
        "Leases that are held.",
        (),
        _one(lambda process: process.leases.held),
        of="process",
    ),
    Metric(
        "lease_left_seconds",
        "gauge",
        "poolproof.lease.left",
        "s",
        "For how long the lease that ends first is certain; absent where none is held.",
        (),
        _one(lambda process: process.leases.left_s),
        of="process",
        across="min",
    ),
    Metric(
        "lease_renewals_total",
        "counter",
        "poolproof.lease.renewals",
        "{renewal}",
        "Renewals of leases that were granted.",
        (),
        _one(lambda process: process.leases.renewals),
        of="process",
    ),
    Metric(
        "lease_lost_total",
        "counter",
        "poolproof.lease.lost",
        "{lease}",
        "Leases that were lost, and not given back.",
        (),
        _one(lambda process: process.leases.lost),
        of="process",
    ),
    Metric(
        "info",
        "info",
        "poolproof.info",
        "1",
        "1 for each pool; its labels say what it is made of.",
        ("pool", "version", "driver", "sqlalchemy", "pool_class"),
        _info,
        of="process",
        across="max",
    ),
)

# What any pool of ours has from its beginning, and no other.
_OF_OURS = "checkouts_total"
_NO_TIMES = Histogram((0,) * (len(BOUNDS) + 1), 0.0)

# What a process that only forks others adds to is what it has, not what it might open:
# its pool is one that nobody uses.
_BOUNDS = ("connections_max", "connections_idle_max")

# What is counted of pools of other classes, too.
_OF_OTHERS = frozenset({"faults_total", "transactions_total", "retries_total"})


def read(process: ProcessSnapshot) -> Samples:
    """Read every metric from a snapshot.

    Args:
        process: The snapshot.

    Returns:
        By the metric's name: its values by the values of its labels.
    """
    found: Samples = {}
    for metric in TABLE:
        values = found[metric.name] = {}
        if metric.of == "process":
            values.update(metric.reads(process))
            continue
        for pool in _pools(process, metric):
            for labels, value in metric.reads(pool):
                values[(pool.name, *labels)] = value
    for other in process.others:  # by which `complete` knows it
        found["transactions_total"].setdefault((other.name, "done"), 0)
    if process.is_main:
        for name in _BOUNDS:
            for pool in process.pools:
                found[name][(pool.name,)] = pool.idle + pool.used
    return found


def _pools(
    process: ProcessSnapshot, metric: Metric
) -> Iterator[PoolCounts | OtherPool]:
    """Yield what a metric is read from: what was counted outlives its pool."""
    yield from process.pools
    if metric.kind in COUNTED:
        yield from process.gone
    if metric.name in _OF_OTHERS:
        yield from process.others


def complete(samples: Samples) -> Samples:
    """Give each pool all counters that it may come to have, with 0 until it does.

    Prometheus takes what it sees first for where a counter began: an event that makes
    its counter begin would be missed by ``increase`` and ``rate``. It is done where
    samples are shown, not where they are kept: processes need not tell each other that
    nothing happened.

    Args:
        samples: What `read` has returned, or the sum of several; they are changed.

    Returns:
        The same.
    """
    ours = {labels[0] for labels in samples.get(_OF_OURS, ())}
    every = ours.union(
        *({labels[0] for labels in samples.get(name, ())} for name in _OF_OTHERS)
    )
    for metric in TABLE:
        if not metric.known:
            continue
        values = samples.setdefault(metric.name, {})
        nothing = _NO_TIMES if metric.kind == "histogram" else 0
        for pool in sorted(every if metric.name in _OF_OTHERS else ours):
            for labels in metric.known:
                values.setdefault((pool, *labels), nothing)
    return samples
