"""The names that were promised, written down apart from the table."""

from __future__ import annotations

# As the plan of the metrics names them, a counter with its `_total`.
PROMISED = {
    "connections": {"state"},
    "connections_max": set(),
    "connections_idle_max": set(),
    "connections_idle_min": set(),
    "waiting": set(),
    "timeouts_total": {"reason"},
    "wait_seconds": set(),
    "loop_lag_seconds": set(),
    "connect_seconds": set(),
    "hold_seconds": {"scope"},
    "oldest_wait_seconds": set(),
    "oldest_hold_seconds": set(),
    "held_idle": set(),
    "checkouts_total": {"waited"},
    "connects_total": {"outcome"},
    "discarded_total": {"reason"},
    "pings_total": {"outcome"},
    "ping_seconds": set(),
    "faults_total": {"fault", "cost"},
    "deadlines_total": {"step"},
    "connect_failures": set(),
    "breaker_open": set(),
    "transactions_total": {"outcome"},
    "retries_total": {"outcome"},
    "stranded_total": {"outcome"},
    "host_budget_max": {"budget"},
    "host_budget_used": {"budget"},
    "host_budget_own": {"budget"},
    "host_budget_waiting": {"budget"},
}
OF_THE_PROCESS = {
    "processes": {"role"},
    "severed_sockets_total": set(),
    "generation": set(),
    "lease_held": set(),
    "lease_left_seconds": set(),
    "lease_renewals_total": set(),
    "lease_lost_total": set(),
    "info": {"pool", "version", "driver", "sqlalchemy", "pool_class"},
}
EVERY = {
    f"poolproof_{name}": {"pool", *labels} for name, labels in PROMISED.items()
} | {f"poolproof_{name}": labels for name, labels in OF_THE_PROCESS.items()}
SEMANTIC = {
    f"db.client.connection.{name}"
    for name in (
        *("count", "max", "idle.max", "idle.min", "pending_requests", "timeouts"),
        *("wait_time", "create_time", "use_time"),
    )
}
