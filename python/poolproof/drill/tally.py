"""Trials put together: one row for each incident, driver and pool."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from poolproof.drill.incidents import Incident, Measure

Number: TypeAlias = int | float
_SAMPLES_MAX = 12


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
        counts = (self.value(m) for m in self.cell.incident.measures if m.is_fault)
        return self.crashes + sum(int(count) for count in counts if count)

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
            "seconds": round(self.seconds, 2),
            "totals": self.totals,
            "samples": list(self.samples),
            "outcomes": [
                {"trial": trial, **_counts(self.outcomes[trial])}
                for trial in sorted(self.outcomes)
            ],
        }


def _counts(outcome: dict[str, Any]) -> dict[str, Any]:
    """Return an outcome without its messages, which the row keeps once."""
    return {k: v for k, v in outcome.items() if k not in ("samples", "stuck")}
