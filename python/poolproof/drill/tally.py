"""Trials put together: one row for each incident, driver and pool."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from poolproof.drill.latency import together
from poolproof.drill.traffic import added_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolproof.drill.incidents import Incident, Measure

Number: TypeAlias = int | float
_SAMPLES_MAX = 12
_OF_THE_ROW = frozenset({"samples", "heard", "took", "stuck"})


@dataclass(frozen=True, slots=True)
class Cell:
    """What is played many times: an incident, with a driver, on a pool."""

    incident: Incident
    driver: str
    pool: str


@dataclass(slots=True)
class Row:
    """The trials of one cell, as they come in."""

    cell: Cell
    wanted: int
    outcomes: dict[int, dict[str, Any]] = field(default_factory=dict)
    crashes: int = 0
    """Trials whose process died or had to be killed as a whole."""

    seconds: float = 0.0
    spans: list[tuple[float, float]] = field(default_factory=list)
    """From when until when it was played, in seconds since the drill began."""

    @property
    def is_done(self) -> bool:
        """Whether every trial has come in."""
        return len(self.outcomes) + self.crashes >= self.wanted

    def value(self, measure: Measure) -> Number | None:
        """Return one measure over all trials, None when no trial has it."""
        values: list[Number] = [
            outcome[measure.field] for outcome in self.outcomes.values()
        ]
        if not values:
            return None
        if measure.over == "sum":
            return sum(values)
        return max(values) if measure.over == "worst" else statistics.median(values)

    @property
    def totals(self) -> dict[str, Number | None]:
        """Every measure by its field, in the incident's order."""
        return {m.field: self.value(m) for m in self.cell.incident.measures}

    @property
    def faults(self) -> int:
        """How many faults a pool that keeps its promises would not have shown."""
        return self.crashes + self._count(lambda m: m.is_fault and not self.is_apart(m))

    @property
    def harm(self) -> int:
        """How often a caller was wronged: by faults, and by what he could see."""
        return self.faults + self._count(lambda m: m.is_harm and not m.is_fault)

    @property
    def apart(self) -> int:
        """How much of what looks like a fault is the drill's own doing."""
        return self._count(lambda m: m.is_fault and self.is_apart(m))

    def is_apart(self, measure: Measure) -> bool:
        """Whether what this row's pool shows of a measure comes of the drill."""
        return measure.by_drill and self.cell.pool == "queue"

    def _count(self, counts: Callable[[Measure], bool]) -> int:
        """Add up the measures that count."""
        chosen = (self.value(m) for m in self.cell.incident.measures if counts(m))
        return sum(int(value) for value in chosen if value)

    @property
    def culprits(self) -> dict[str, int]:
        """The measures of its faults, as people read them, with their counts."""
        found = {
            measure.label: int(self.value(measure) or 0)
            for measure in self.cell.incident.measures
            if measure.is_fault and not self.is_apart(measure)
        }
        found["crashed trials"] = self.crashes
        return {label: count for label, count in found.items() if count}

    @property
    def heard(self) -> dict[str, int]:
        """The texts of the errors that callers got, each with how often, by that."""
        return added_up(*(one.get("heard", {}) for one in self.outcomes.values()))

    @property
    def took(self) -> dict[str, int]:
        """How long callers waited for what they asked, as `latency.by_step` counts."""
        return together(*(one.get("took", {}) for one in self.outcomes.values()))

    @property
    def samples(self) -> tuple[str, ...]:
        """Some of the messages and wrong answers, each once."""
        every = (s for o in self.outcomes.values() for s in o.get("samples", ()))
        return tuple(dict.fromkeys(every))[:_SAMPLES_MAX]

    def as_json(self) -> dict[str, Any]:
        """Return the row as plain data, every trial included."""
        return {
            "incident": self.cell.incident.name,
            "driver": self.cell.driver,
            "pool": self.cell.pool,
            "trials": self.wanted,
            "crashes": self.crashes,
            "faults": self.faults,
            "harm": self.harm,
            "apart": self.apart,
            "seconds": round(self.seconds, 2),
            "spans": [[round(at, 2) for at in span] for span in self.spans],
            "took_ms": self.took,
            "totals": self.totals,
            "samples": list(self.samples),
            "heard": dict(list(self.heard.items())[:_SAMPLES_MAX]),
            "outcomes": [
                {"trial": trial, **_counts(self.outcomes[trial])}
                for trial in sorted(self.outcomes)
            ],
        }


def _counts(outcome: dict[str, Any]) -> dict[str, Any]:
    """Return an outcome without its messages, which the row keeps once."""
    return {k: v for k, v in outcome.items() if k not in _OF_THE_ROW}
