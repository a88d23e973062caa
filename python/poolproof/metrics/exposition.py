"""The text that Prometheus reads, written for many pools and processes.

`prometheus_client` writes the same (a test compares them), in ten times the time: each
of its lines checks the names and labels that stand fast here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poolproof.metrics.table import BOUNDS, TABLE, Histogram

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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
        values = samples.get(metric.name, {}).items()
        if metric.kind != "histogram":
            yield from _plain(metric, values)
            continue
        for labels, value in values:
            if isinstance(value, Histogram):
                named = _named(metric, labels)
                before = f'{name}_bucket{{{named}{"," if named else ""}le="'
                for end, count in zip(_ENDS, value.up_to, strict=True):
                    yield f'{before}{end}"}} {float(count)}\n'
                yield f"{name}_count{{{named}}} {float(value.count)}\n"
                yield f"{name}_sum{{{named}}} {float(value.sum_s)}\n"


def _plain(metric: Metric, values: Iterable[tuple[Labels, Any]]) -> Iterator[str]:
    """Write a metric that is one number for each of its labels.

    Most have a pool, and behind it one of few values: what stands before and behind is
    written once for all that share it.
    """
    name = metric.full_name
    first, *others = metric.every_label or ("",)
    heads: dict[str, str] = {}
    tails: dict[Labels, str] = {}
    for labels, value in values:
        if not labels:
            yield f"{name} {float(value)}\n"
            continue
        head = heads.get(labels[0])
        if head is None:
            head = heads[labels[0]] = f'{name}{{{first}="{_escaped(labels[0])}"'
        behind = labels[1:]
        tail = tails.get(behind)
        if tail is None:
            shown = (
                f',{each}="{_escaped(found)}"'
                for each, found in zip(others, behind, strict=True)
            )
            tail = tails[behind] = f"{''.join(shown)}}} "
        yield f"{head}{tail}{float(value)}\n" if value else f"{head}{tail}0.0\n"


def _named(metric: Metric, labels: Labels) -> str:
    return ",".join(
        f'{label}="{_escaped(value)}"'
        for label, value in zip(metric.every_label, labels, strict=True)
    )


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
