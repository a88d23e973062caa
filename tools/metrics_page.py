"""Writes docs/metrics.md and the Grafana dashboard from the table of metrics.

Without an argument it writes them; with ``--check`` it fails when they are not what it
would write.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from poolproof.metrics import otel
from poolproof.metrics.table import BOUNDS, TABLE, Metric

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "metrics.md"
DASHBOARD = DOCS / "dashboards" / "poolproof.json"

HEAD = """\
# Metrics

<!-- Written by tools/metrics_page.py from python/poolproof/metrics/table.py: change it there. -->

`poolproof.snapshot(engine)` says what a pool is doing and has done, with quantiles and
who holds which connection; `poolproof.snapshot()` all pools of the process. The same
numbers go to Prometheus, OpenTelemetry and StatsD. Nothing here asks the server, waits
for a lock, or costs a checkout more than a third of a microsecond.

```python
import poolproof
from sqlalchemy import create_engine

engine = create_engine("postgresql+psycopg2://app@db/app", poolclass=poolproof.Pool)
seen = poolproof.snapshot(engine)
print(seen.used, seen.waiting, seen.wait.p99_s, seen.oldest_hold_s, seen.faults)
```

## Prometheus

`pip install ".[prometheus]"` in a checkout. One process:

```python
from poolproof.metrics.prometheus import Collector
from prometheus_client import REGISTRY

REGISTRY.register(Collector())
```

### Many processes

Under Gunicorn, Celery and Luigi each process has pools of its own, and a scrape meets
one of them. Set `POOLPROOF_METRICS_DIR` to a directory that all of them may write to,
preferably in memory (`/dev/shm/app`). Each process then keeps what it knows in a file
there, readable by its user alone, once a second, from its first attempt to connect on;
where only `PROMETHEUS_MULTIPROC_DIR` is set, in `poolproof` below that. A process that
is killed leaves what it wrote last: its counters stay in the sums, its gauges do not.
What it counted after that, within its last second, is lost. One that ends by
`os._exit` cannot be told from one that is killed, for no code of Python's runs: RQ's
work horses, a child of your own. Workers of `multiprocessing` and billiard end so as
well, but write at their end.
A process that drops an engine goes on showing what that has counted, under its name, so
no sum falls. It keeps 64 names that no pool has any more; what is counted under others
(an engine for each tenant) is added up as `other` when its pool has gone.
Delete the directory when the application is started anew.

Under Gunicorn with [its hooks](deploying/gunicorn.md) nothing need be set for a page:
where the application has `add_metrics` or `with_metrics` and no directory is named, the
master chooses one in `/dev/shm` (else the system's directory for temporary files) that
only this user can read, and takes it away when it ends; one that is killed leaves it.
`poolproof watch`, `poolproof metrics` and another program do not know of that
directory: name one for them.

A page without a directory is of the process that answers, alone. Its first line, a
comment, says so, `poolproof_processes` is 1, and the doctor warns of it where there are
several workers (PP311).

Whoever serves the metrics reads all files:

<!-- not run: it needs the directory of an application -->
```python
from poolproof.metrics.prometheus import MultiProcess
from prometheus_client import CollectorRegistry, multiprocess

registry = CollectorRegistry()
registry.register(MultiProcess())
multiprocess.MultiProcessCollector(registry)  # beside the application's own
```

| where | how |
|---|---|
| Flask | `poolproof_flask.add_metrics(app)`: `/metrics` of the application |
| any WSGI application under Gunicorn | `app = with_metrics(app)`, from `poolproof.metrics.wsgi` |
| Celery, Luigi, or beside them | `poolproof metrics --listen 127.0.0.1:9898` serves the directory; without `--listen` it prints it |

Who can reach `/metrics` can read it: the names of databases and hosts, scopes, counts.
No process id, user, password or DSN is in it.

### Panels

[dashboards/poolproof.json](dashboards/poolproof.json) is a Grafana dashboard of what is
below: *Dashboards*, *New*, *Import*, and choose the Prometheus data source.

## OpenTelemetry

`pip install ".[otel]"` in a checkout.

```python
from poolproof.metrics import otel

otel.install()  # or of a MeterProvider of yours
```

Once is enough, where the application begins: in a child of a fork the instruments, and
the spans of `otel.trace`, begin anew. The provider does not. One that was made before a
fork exports every child under the parent's `service.instance.id`, with the parent's
histograms in it, and the last writer wins: call `set_meter_provider` and
`set_tracer_provider` in `post_fork` of Gunicorn, or in `worker_process_init` of Celery.
What `install` and `trace` were called for before is of the provider that is set then.

Names and attributes are those of the [semantic conventions](https://opentelemetry.io/docs/specs/semconv/database/database-metrics/)
where they have one. OpenTelemetry has no histogram that can be observed: at each
collection what the pools' histograms have gained is recorded bucket by bucket, so
buckets, count and sum are right, and minimum and maximum are not known. They begin with
`install`; counters are those of the pool's whole life. A recording of the SDK's takes
about 5 µs, in the thread of the reader: a thousand checkouts a second, with two
histograms each, are one per cent of a core.

`otel.trace(wait_s=0.1, connect_s=0.1)` makes a span of each wait for a slot and each
connecting that takes longer, as a child of the span that the caller is in. Off unless
it is called.

## StatsD

```python
from poolproof.metrics.statsd import StatsD

reports = StatsD("127.0.0.1", 8125, every_s=10)
reports.start()
reports.stop()
```

Once is enough, where the application begins: a child of a fork begins by itself, when
it opens its first connection.
Names are those of Prometheus with a dot
(`poolproof.connections`), labels are tags as Datadog and Telegraf read them; with
`tags=False` they stand behind the name. Counters are sent as what they have gained;
histograms as `.count`, `.sum`, `.p50`, `.p95`, `.p99`.

## Scopes

```python
with poolproof.scope("checkout-page"):
    ...


@poolproof.scope("nightly-report")
def report(): ...
```

says what part of the application holds a connection. `poolproof_hold_seconds`, the
holders of `poolproof.snapshot` and the log carry it. The integrations, once installed
(`init_app`, `install`), name the endpoint of Flask, of Starlette and FastAPI, and the
task of Celery and Luigi by themselves. At most 200 names are told apart in a process; what comes later is `other`. So a scope is a kind of work, never one
piece of it: no order number, no user.

## Memory

A pool's histograms take 1 KiB when it is made, 3 to 4 KiB when it is used (buckets are
made in parts, where times fall), and 10 KiB if every bucket of every one were hit; a
scope beyond that a quarter of a KiB for each pool that it holds connections of, and the
first scope of a pool 3 KiB. [The journal](journal.md) gives way: both together take
256 KiB at most in a process of up to 20 such pools, the usual one of a few pools far
less. With more pools, or dozens of scopes on each, it is what they need and 64 KiB of
journal: 50 pools with 200 scopes each would be 3 MiB. The counts of a pool that is gone
take what they took before, for up to 64 names.

Beside that each connection remembers its last 16 statements, 512 characters of each;
most are strings that SQLAlchemy keeps anyway.

## Processes that only fork others

Gunicorn's master with `preload_app`, and the parent of Celery's processes, have pools,
too, and may have opened connections before they forked. With the integrations they are
`poolproof_processes{role="main"}`, and add to `poolproof_connections_max` what they
have open, not what they might open: nobody uses their pools.

## The questions

| question | answer |
|---|---|
| how many connections are in use | `sum by (pool) (poolproof_connections{state="used"})` |
| how near the limit | the same ÷ `sum by (pool) (poolproof_connections_max)` |
| how long callers wait | `histogram_quantile(0.99, sum by (pool, le) (rate(poolproof_wait_seconds_bucket[5m])))` |
| how late loops of asyncio let those go on who have waited | `histogram_quantile(0.99, sum by (pool, le) (rate(poolproof_loop_lag_seconds_bucket[5m])))` |
| for how long the first has waited | `max by (pool) (poolproof_oldest_wait_seconds)` |
| who gets none | `sum by (pool, reason) (rate(poolproof_timeouts_total[5m]))` |
| who holds for long | `histogram_quantile(0.99, sum by (scope, le) (rate(poolproof_hold_seconds_bucket[5m])))` |
| who holds and does nothing | `sum by (pool) (poolproof_held_idle)` |
| how many `PGRES_TUPLES_OK` | `sum by (pool) (increase(poolproof_faults_total{fault="corruption"}[1d]))` |
| how many connections are opened anew | `sum by (pool, reason) (rate(poolproof_discarded_total[5m]))` |
| is the host's budget used up | `max by (budget) (poolproof_host_budget_used) / max by (budget) (poolproof_host_budget_max)` |
| does a lease run out | `min(poolproof_lease_left_seconds)` |

"""

VALUES = """\

### What labels say

Each pool has these counters from its beginning, with 0, so that `increase()` and
`rate()` do not miss the first event; only StatsD, which is sent what was gained, is
spared them. Others may come: a listener of `poolproof.on_fault` may have a fault cost
what the [table of faults](faults.md) does not.

"""

FEET = """\

What counts: a *checkout* is counted when the caller has its connection; one for whom
connecting failed is none, and neither is its wait counted; it is under `timeouts` or
`connects`. A *hold* is counted when the connection comes back. *Discarded* are those of
the pool's own list: [](numbers.md). Buckets of histograms end at {bounds} s.
"""

TITLES = {
    "Use": ("connections", "connections_max", "waiting", "held_idle"),
    "Waiting": ("wait_seconds", "oldest_wait_seconds", "timeouts_total"),
    "Holding": ("hold_seconds", "oldest_hold_seconds", "checkouts_total"),
    "Connecting": ("connect_seconds", "connects_total", "connect_failures"),
    "Health": ("faults_total", "discarded_total", "deadlines_total", "breaker_open"),
    "Asking": ("pings_total", "ping_seconds", "stranded_total"),
    "Work": ("transactions_total", "retries_total"),
    "Leases": (
        *("lease_held", "lease_left_seconds"),
        *("lease_renewals_total", "lease_lost_total"),
    ),
    "Processes": ("processes", "severed_sockets_total", "generation", "info"),
    "Limits": ("connections_idle_max", "connections_idle_min"),
    "Loops": ("loop_lag_seconds",),
    "The host": (
        *("host_budget_max", "host_budget_used"),
        *("host_budget_own", "host_budget_waiting"),
    ),
}
WIDTH, HEIGHT, COLUMNS = 8, 7, 3


def page() -> str:
    """Return the whole page."""
    rows = [["Prometheus", "kind", "labels", "OpenTelemetry", "unit", "what it says"]]
    rows.append(["---"] * len(rows[0]))
    rows += [
        [
            f"`{metric.full_name}`",
            metric.kind,
            ", ".join(f"`{label}`" for label in metric.every_label),
            f"`{metric.otel}`",
            f"`{metric.unit}`",
            metric.about,
        ]
        for metric in TABLE
    ]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    attributes = {otel.attribute(label) for m in TABLE for label in m.every_label}
    named = ", ".join(f"`{name}`" for name in sorted(attributes))
    bounds = ", ".join(f"{bound:g}" for bound in BOUNDS)
    between = (
        f"\nAttributes in OpenTelemetry: {named}; and of each pool `db.system.name`, "
        "`db.namespace`, `server.address`, `server.port`.\n"
    )
    feet = FEET.format(bounds=bounds)
    return f"{HEAD}## Every metric\n\n{table}{between}{feet}{VALUES}{values()}"


def values() -> str:
    """Return a table of the values that labels are known to have."""
    rows = [["counter", "labels", "values"], ["---"] * 3]
    for metric in TABLE:
        if metric.known and metric.kind == "counter":
            shown = (f"`{' '.join(labels)}`" for labels in metric.known)
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            rows.append([f"`{metric.full_name}`", labels, ", ".join(shown)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def dashboard() -> str:
    """Return the dashboard as JSON: one panel for each metric, a row for each title."""
    by_name = {metric.name: metric for metric in TABLE}
    left_out = set(by_name) - {name for names in TITLES.values() for name in names}
    if left_out:
        sys.exit(f"metrics_page: no row of the dashboard has {', '.join(left_out)}")
    panels: list[dict[str, Any]] = []
    top = 0
    for title, names in TITLES.items():
        place = {"x": 0, "y": top, "w": 24, "h": 1}
        panels.append({"type": "row", "title": title, "gridPos": place, "panels": []})
        top += 1
        for number, name in enumerate(names):
            row, column = divmod(number, COLUMNS)
            at = {"x": column * WIDTH, "y": top + row * HEIGHT}
            panels.append(panel(by_name[name], {**at, "w": WIDTH, "h": HEIGHT}))
        top += HEIGHT * (1 + (len(names) - 1) // COLUMNS)
    for number, one in enumerate(panels, 1):
        one["id"] = number
    body = {
        "title": "poolproof",
        "uid": "poolproof",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "tags": ["postgresql", "sqlalchemy"],
        "templating": {"list": variables()},
        "panels": panels,
    }
    return json.dumps(body, indent=1) + "\n"


def variables() -> list[dict[str, Any]]:
    """Return the dashboard's variables: the data source, and the pools."""
    source = {"type": "prometheus", "uid": "${datasource}"}
    return [
        {"name": "datasource", "type": "datasource", "query": "prometheus"},
        {
            "name": "pool",
            "type": "query",
            "datasource": source,
            "query": "label_values(poolproof_connections, pool)",
            "refresh": 2,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        },
    ]


def panel(metric: Metric, place: dict[str, int]) -> dict[str, Any]:
    """Return one panel."""
    if metric.kind == "info":
        kind, unit = "table", "none"
    else:
        kind, unit = "timeseries", "s" if metric.unit == "s" else "short"
    targets = [
        {"refId": chr(65 + number), "expr": expression, "legendFormat": legend}
        for number, (expression, legend) in enumerate(queries(metric))
    ]
    return {
        "type": kind,
        "title": metric.full_name,
        "description": metric.about,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": targets,
    }


def queries(metric: Metric) -> list[tuple[str, str]]:
    """Return what a panel asks, with the legend of each."""
    name, labels = metric.full_name, metric.every_label
    where = '{pool=~"$pool"}' if "pool" in labels else ""
    by = f" by ({', '.join(labels)})" if labels else ""
    legend = " ".join(f"{{{{{label}}}}}" for label in labels) or metric.name
    if metric.kind == "histogram":
        groups = ", ".join((*labels, "le"))
        rate = f"sum by ({groups}) (rate({name}_bucket{where}[$__rate_interval]))"
        return [
            (f"histogram_quantile({share}, {rate})", f"{legend} p{share[2:]}")
            for share in ("0.50", "0.95", "0.99")
        ]
    if metric.kind == "counter":
        return [(f"sum{by} (rate({name}{where}[$__rate_interval]))", legend)]
    return [(f"{metric.across}{by} ({name}{where})", legend)]


def main(arguments: list[str]) -> int:
    """Write both, or compare them."""
    made = {PAGE: page(), DASHBOARD: dashboard()}
    status = 0
    for path, text in made.items():
        if arguments != ["--check"]:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"{path.name} is not what the table says; run tools/metrics_page.py")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
