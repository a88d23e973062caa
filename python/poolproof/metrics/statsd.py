"""StatsD: the metrics of this process, sent over UDP at a regular interval.

    from poolproof.metrics.statsd import StatsD

    StatsD("127.0.0.1", 8125).start()

Names are those of Prometheus with dots: ``poolproof.connections``. Labels are tags as
DogStatsD and Telegraf read them, or stand behind the name. Counters are sent as what
they have gained, gauges as they are; of a histogram the quantiles that the pool keeps.
"""

from __future__ import annotations

import re
import socket
import threading
from typing import TYPE_CHECKING

from poolproof import _native
from poolproof._log import Log, Seldom
from poolproof._service_thread import ServiceThread
from poolproof.metrics.automatic import is_bystander
from poolproof.metrics.beginning import at_connects, no_more
from poolproof.metrics.snapshot import snapshot
from poolproof.metrics.table import BOUNDS, PREFIX, TABLE, Histogram, Metric, read

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["StatsD"]

_log = Log("poolproof.metrics")
# What fits in one packet of any network.
_PACKET = 1400
_UNSAFE = re.compile(r"[^\w.@/-]")
_PARTS = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_PORT_MOST = 65535


class StatsD:
    """Sends the metrics of this process."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8125,
        *,
        every_s: float = 10.0,
        tags: bool = True,
    ) -> None:
        """Choose where to; nothing is sent yet.

        Args:
            host: The daemon's.
            port: Its port, 1 to 65535.
            every_s: Seconds between two reports, more than 0.
            tags: Whether labels are tags; else they stand behind the name, with dots.

        Raises:
            ValueError: A number out of its range.
            TypeError: One that is no number.
        """
        if type(port) is not int:
            msg = f"port is a whole number, not {port!r}"
            raise TypeError(msg)
        if not 1 <= port <= _PORT_MOST:
            msg = f"port is between 1 and {_PORT_MOST}, not {port}"
            raise ValueError(msg)
        if not every_s > 0:
            msg = f"every_s is a number of seconds above 0, not {every_s!r}"
            raise ValueError(msg)
        self._address = (host, port)
        self._every_s = every_s
        self._tags = tags
        self._begin()
        self._seldom = Seldom(60.0)

    def _begin(self) -> None:
        self._generation = _native.generation()
        self._sent: dict[tuple[str, tuple[str, ...]], float] = {}
        self._ends = threading.Event()
        self._thread = ServiceThread("poolproof-statsd", self._work, lambda: None)

    def start(self) -> None:
        """Send every so often, from a daemon thread. Idempotent.

        A child of a fork begins by itself, when it opens its first connection.
        """
        if self._ends.is_set():
            self._ends = threading.Event()
        self._renew()
        at_connects(self._renew)

    def _renew(self) -> None:
        if self._generation != _native.generation():
            self._begin()
        self._thread.start()

    def stop(self) -> None:
        """Send no more."""
        no_more(self._renew)
        self._ends.set()
        self._thread.join(self._every_s)

    def _work(self) -> None:
        ends, generation = self._ends, self._generation
        while not ends.wait(self._every_s):
            if generation != _native.generation():
                return  # a greenlet that lives on in a child
            if is_bystander():
                continue
            try:
                self.send()
            except OSError as error:  # it may be away for a while
                if (more := self._seldom.due()) is not None:
                    _log.warning("metrics could not be sent: %s%s", error, more)

    def send(self) -> None:
        """Send what there is now.

        Raises:
            OSError: The address is none, or the system does not send.
        """
        if self._generation != _native.generation():
            self._begin()
        family = socket.getaddrinfo(*self._address, type=socket.SOCK_DGRAM)[0]
        with socket.socket(*family[:2]) as sender:
            for packet in _packets(self._lines()):
                sender.sendto(packet, family[4])

    def _lines(self) -> Iterator[str]:
        samples = read(snapshot())
        for metric in TABLE:
            for labels, value in samples[metric.name].items():
                if isinstance(value, Histogram):
                    yield from self._times(metric, labels, value)
                elif metric.kind == "counter":
                    yield from self._gained(metric, labels, value)
                else:
                    yield self._line(metric, labels, value, "g")

    def _times(
        self, metric: Metric, labels: tuple[str, ...], value: Histogram
    ) -> Iterator[str]:
        yield from self._gained(metric, labels, value.count, ".count")
        yield from self._gained(metric, labels, value.sum_s, ".sum")
        for part, share in _PARTS.items():
            seconds = _quantile(value, share)
            yield self._line(metric, labels, seconds, "g", f".{part}")

    def _gained(
        self, metric: Metric, labels: tuple[str, ...], value: float, behind: str = ""
    ) -> Iterator[str]:
        key = (metric.name + behind, labels)
        gained = value - self._sent.get(key, 0)
        self._sent[key] = value
        yield self._line(metric, labels, gained, "c", behind)

    def _line(
        self,
        metric: Metric,
        labels: tuple[str, ...],
        value: float,
        kind: str,
        behind: str = "",
    ) -> str:
        name = f"{PREFIX}.{metric.name}{behind}"
        named = [
            (label, _UNSAFE.sub("_", found))
            for label, found in zip(metric.every_label, labels, strict=True)
            if found
        ]
        if not self._tags:
            dotted = (found.replace(".", "_") for _label, found in named)
            return f"{'.'.join((name, *dotted))}:{_number(value)}|{kind}"
        tags = ",".join(f"{label}:{found}" for label, found in named)
        return f"{name}:{_number(value)}|{kind}{f'|#{tags}' if tags else ''}"


def _number(value: float) -> str:
    # A gauge with a sign would be taken for a change.
    return f"{max(value, 0):.9g}"


def _quantile(value: Histogram, share: float) -> float:
    """Estimate within the exported bounds; 0 where there was none."""
    rank = value.count * share
    before, low = 0, 0.0
    for bound, up_to in zip(BOUNDS, value.up_to, strict=False):
        if up_to >= rank and up_to:
            inside = (rank - before) / max(1, up_to - before)
            return low + (bound - low) * min(1.0, max(0.0, inside))
        before, low = up_to, bound
    return low if value.count else 0.0


def _packets(lines: Iterator[str]) -> Iterator[bytes]:
    packet: list[str] = []
    length = 0
    for line in lines:
        if packet and length + len(line) + 1 > _PACKET:
            yield "\n".join(packet).encode()
            packet, length = [], 0
        packet.append(line)
        length += len(line) + 1
    if packet:
        yield "\n".join(packet).encode()
