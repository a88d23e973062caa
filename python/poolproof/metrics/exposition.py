"""The text that Prometheus reads, written for many pools and processes.

`prometheus_client` writes the same (a test compares them), in ten times the time: each
of its lines checks the names and labels that stand fast here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolproof.metrics.table import BOUNDS, TABLE, Histogram

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poolproof.metrics.table import Labels, Metric, Samples

__all__ = ["CONTENT_TYPE", "text"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ENDS = (*map(str, BOUNDS), "+Inf")
_KINDS = {"info": "gauge"}


def text(samples: Samples) -> bytes:
    """Write samples in Prometheus' text format.

    Args:
        samples: What `table.read` has returned, or the sum of several.
    """
    return "".join(_lines(samples)).encode()


def _lines(samples: Samples) -> Iterator[str]:
    for metric in TABLE:
        name = metric.full_name
        yield f"# HELP {name} {metric.about}\n"
        yield f"# TYPE {name} {_KINDS.get(metric.kind, metric.kind)}\n"
        for labels, value in samples.get(metric.name, {}).items():
            named = _named(metric, labels)
            if isinstance(value, Histogram):
                before = f'{name}_bucket{{{named}{"," if named else ""}le="'
                for end, count in zip(_ENDS, value.up_to, strict=True):
                    yield f'{before}{end}"}} {float(count)}\n'
                yield f"{name}_count{{{named}}} {float(value.count)}\n"
                yield f"{name}_sum{{{named}}} {float(value.sum_s)}\n"
            else:
                behind = f"{{{named}}}" if named else ""
                yield f"{name}{behind} {float(value)}\n"


def _named(metric: Metric, labels: Labels) -> str:
    return ",".join(
        f'{label}="{_escaped(value)}"'
        for label, value in zip(metric.every_label, labels, strict=True)
    )


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
