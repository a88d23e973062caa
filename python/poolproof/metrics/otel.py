"""OpenTelemetry: instruments of this process's pools, and spans of what takes long.

    from poolproof.metrics import otel

    otel.install()  # of the global MeterProvider

Once is enough: in a child the instruments begin anew. A provider does not. One that was
made before a fork exports as if all processes were the same, so set the global one in
each child; the instruments are of whichever is set.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

try:
    from opentelemetry import metrics
    from opentelemetry import trace as tracing
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
except ImportError as error:
    raise ImportError(
        "poolproof.metrics.otel needs OpenTelemetry: pip install opentelemetry-api"
    ) from error

from poolproof import _native
from poolproof._native import __version__
from poolproof.metrics.automatic import is_bystander
from poolproof.metrics.snapshot import snapshot
from poolproof.metrics.table import BOUNDS, TABLE, Histogram, Metric, complete, read
from poolproof.pool.took import listeners

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from poolproof.metrics.facts import ProcessSnapshot
    from poolproof.metrics.table import Samples
    from poolproof.pool.took import Took

    Servers = dict[str, dict[str, str | int]]

__all__ = ["Instruments", "attribute", "install", "trace"]

_SCOPE = "poolproof"
_SYSTEM = "postgresql"
# What the semantic conventions have a name for.
_ATTRIBUTES = {
    "pool": "db.client.connection.pool.name",
    "state": "db.client.connection.state",
}


def install(provider: MeterProvider | None = None) -> Instruments:
    """Make the instruments of every metric.

    Args:
        provider: None takes the global one.

    Returns:
        The instruments. They last as long as the provider.
    """
    return Instruments(metrics.get_meter_provider() if provider is None else provider)


def trace(
    wait_s: float | None = 0.1,
    connect_s: float | None = 0.1,
    provider: tracing.TracerProvider | None = None,
) -> Callable[[], None]:
    """Make a span of each wait for a slot, and each connecting, that takes long.

    It is a child of the span that the caller is in.

    Args:
        wait_s: From how many seconds on a wait has a span, 0 or more; None never.
        connect_s: The same of connecting.
        provider: None takes the global one.

    Returns:
        A function that ends it.

    Raises:
        ValueError: A length below 0, or NaN.
    """
    least = {"wait": wait_s, "connect": connect_s}
    for what, seconds in least.items():
        if seconds is not None and not seconds >= 0:
            msg = f"{what}_s is a number of seconds, 0 or more, or None, not {seconds}"
            raise ValueError(msg)
    tracer = tracing.get_tracer(_SCOPE, __version__, provider)

    def listen(took: Took) -> None:
        bound = least[took.what]
        if bound is None or took.seconds < bound:
            return
        end = time.time_ns()
        span = tracer.start_span(
            f"{_SCOPE}.{took.what}",
            kind=tracing.SpanKind.CLIENT,
            attributes={
                _ATTRIBUTES["pool"]: took.pool.name(),
                "db.system.name": _SYSTEM,
            },
            start_time=end - int(took.seconds * 1e9),
        )
        if took.error is not None:
            # Its text may hold what the application would not show.
            kind = type(took.error).__qualname__
            span.set_attribute("error.type", kind)
            span.set_status(tracing.StatusCode.ERROR, kind)
        span.end(end)

    return listeners.add(listen)


def attribute(label: str) -> str:
    """Name an attribute after a label of the table.

    Args:
        label: The label.
    """
    return _ATTRIBUTES.get(label, f"{_SCOPE}.{label}")


class Instruments:
    """The instruments over the pools of this process.

    Gauges and counters are observed when a reader collects. OpenTelemetry has no
    histogram that can be observed: what the pools' own have gained since the last look
    is recorded then, bucket by bucket, so that buckets, count and sum are right within
    one collection; single values, and with them minimum and maximum, are not known.
    They begin with the instruments: each value is a call, and a pool may have a million
    behind it.
    """

    def __init__(self, provider: MeterProvider) -> None:
        """Make them.

        Args:
            provider: Whose.
        """
        self._meter = provider.get_meter(_SCOPE, __version__)
        self._generation = _native.generation()
        self._histograms: dict[str, Any] = {}
        self._seen: tuple[Servers, Samples] | None = None
        for metric in TABLE:
            if metric.kind == "histogram":
                self._histograms[metric.name] = self._meter.create_histogram(
                    metric.otel,
                    unit=metric.unit,
                    description=metric.about,
                    explicit_bucket_boundaries_advisory=BOUNDS,
                )
        samples = read(snapshot())
        self._recorded: dict[tuple[str, tuple[str, ...]], Histogram] = {
            (name, labels): value
            for name in self._histograms
            for labels, value in samples[name].items()
        }
        for metric in TABLE:
            if metric.kind != "histogram":
                self._observe(metric)

    def _observe(self, metric: Metric) -> None:
        make = {
            "up_down_counter": self._meter.create_observable_up_down_counter,
            "counter": self._meter.create_observable_counter,
            "gauge": self._meter.create_observable_gauge,
        }[metric.instrument]
        make(metric.otel, [self._reader(metric)], metric.unit, metric.about)

    def _reader(
        self, metric: Metric
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        # Every collection asks each instrument, in the order of the table: the first of
        # them looks for all, and brings the histograms up to date.
        is_first = metric.name == TABLE[0].name

        def observe(_options: CallbackOptions) -> Iterator[Observation]:
            if is_bystander():
                return
            if is_first or self._seen is None:
                process = snapshot()
                self._seen = (_servers(process), complete(read(process)))
                self._record(*self._seen)
            servers, samples = self._seen
            for labels, value in samples[metric.name].items():
                yield Observation(value, _attributes(metric, labels, servers))

        return observe

    def _record(self, servers: Servers, samples: Samples) -> None:
        """Record what the histograms have gained."""
        if self._generation != _native.generation():
            # A child begins with nothing.
            self._generation = _native.generation()
            self._recorded = {}
        for metric in TABLE:
            instrument = self._histograms.get(metric.name)
            if instrument is None:
                continue
            for labels, value in samples[metric.name].items():
                before = self._recorded.get((metric.name, labels))
                self._recorded[metric.name, labels] = value
                attributes = _attributes(metric, labels, servers)
                for seconds, count in _gained(before, value):
                    for _ in range(count):
                        instrument.record(seconds, attributes)


def _gained(before: Histogram | None, now: Histogram) -> Iterator[tuple[float, int]]:
    """Say what a histogram has gained: a length for each bucket, and how many.

    The lengths are so chosen between the ends of the buckets that their sum is right.
    """
    counts = _counts(now)
    gained = (
        counts
        if before is None
        else [new - old for new, old in zip(counts, _counts(before), strict=True)]
    )
    sum_s = now.sum_s - (0.0 if before is None else before.sum_s)
    lower = (0.0, *BOUNDS)
    upper = (*BOUNDS, max(BOUNDS[-1], sum_s))
    least = sum(low * count for low, count in zip(lower, gained, strict=True))
    most = sum(high * count for high, count in zip(upper, gained, strict=True))
    part = 0.0 if most <= least else (sum_s - least) / (most - least)
    part = min(1.0, max(0.0, part))
    for low, high, count in zip(lower, upper, gained, strict=True):
        if count > 0:
            yield low + (high - low) * part if part else _inside(low, high), count


def _inside(low: float, high: float) -> float:
    """A lower end belongs to the bucket below; 0 has none below."""
    return low if not low else min(high, low * 1.000001)


def _counts(histogram: Histogram) -> list[int]:
    """Return how many are in each bucket alone."""
    before = (0, *histogram.up_to[:-1])
    return [here - there for here, there in zip(histogram.up_to, before, strict=True)]


def _servers(process: ProcessSnapshot) -> Servers:
    """Say of each pool which server it is at, as the conventions name that."""
    found: Servers = {}
    for pool in process.pools:
        known = {
            "db.namespace": pool.database,
            "server.address": pool.host,
            "server.port": pool.port,
        }
        found[pool.name] = {key: value for key, value in known.items() if value}
    return found


def _attributes(
    metric: Metric, labels: tuple[str, ...], servers: Servers
) -> dict[str, str | int]:
    names = metric.every_label
    found: dict[str, str | int] = {
        attribute(name): value
        for name, value in zip(names, labels, strict=True)
        if value or name == "pool"
    }
    if "pool" in names:
        found["db.system.name"] = _SYSTEM
        found.update(servers.get(labels[names.index("pool")], {}))
    return found
