"""Prometheus: a collector of this process, and one of many (`MultiProcess`).

from prometheus_client import REGISTRY
from poolproof.metrics.prometheus import Collector

REGISTRY.register(Collector())
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )
    from prometheus_client.registry import Collector as _Collector
except ImportError as error:
    raise ImportError(
        "poolproof.metrics.prometheus needs prometheus_client: "
        "pip install prometheus-client"
    ) from error

from poolproof.metrics import files
from poolproof.metrics.snapshot import snapshot
from poolproof.metrics.table import BOUNDS, PREFIX, TABLE, Metric, complete, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from poolproof.metrics.table import Samples

__all__ = ["Collector", "MultiProcess"]


class Collector(_Collector):
    """The pools of this process, for a registry of `prometheus_client`."""

    def collect(self) -> Iterator[Any]:
        """Yield every metric of the table."""
        return _families(complete(read(snapshot())))

    def describe(self) -> Iterator[Any]:
        """Yield the names, so that a registry need not ask for the values."""
        return _families({})


class MultiProcess(_Collector):
    """The pools of all processes that keep their metrics in one directory.

    Gauges are of the processes that live, counters and histograms also of those that
    have ended. It may stand beside `prometheus_client`'s own `MultiProcessCollector`
    in one registry.
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        """Choose the directory.

        Args:
            directory: Where the processes keep their files. None takes
                ``POOLPROOF_METRICS_DIR``, or ``poolproof`` in
                ``PROMETHEUS_MULTIPROC_DIR``.

        Raises:
            MetricsError: No directory is given, or it is none.
        """
        self._directory = files.directory_of(directory)

    def collect(self) -> Iterator[Any]:
        """Yield every metric of the table."""
        return _families(files.read_all(self._directory))

    def describe(self) -> Iterator[Any]:
        """Yield the names, so that a registry need not ask for the values."""
        return _families({})


def _families(samples: Samples) -> Iterator[Any]:
    for metric in TABLE:
        yield _family(metric, samples.get(metric.name, {}).items())


def _family(metric: Metric, values: Iterable[tuple[tuple[str, ...], Any]]) -> Any:
    name = f"{PREFIX}_{metric.name}"
    labels = metric.every_label
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(name, metric.about, labels=labels)
        for found, value in values:
            buckets = zip((*map(str, BOUNDS), "+Inf"), value.up_to, strict=True)
            histogram.add_metric(found, list(buckets), value.sum_s)
        return histogram
    if metric.kind == "counter":
        counter = CounterMetricFamily(name, metric.about, labels=labels)
        for found, value in values:
            counter.add_metric(found, value)
        return counter
    # An info metric's name ends with _info: ours is that of a gauge which is 1.
    gauge = GaugeMetricFamily(name, metric.about, labels=labels)
    for found, value in values:
        gauge.add_metric(found, value)
    return gauge
