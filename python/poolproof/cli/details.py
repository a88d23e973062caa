"""Every count of a drill, the pools side by side, and what counts do not tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from poolproof.cli.summary import TITLES, counted
from poolproof.drill.incidents import Measure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from poolproof.drill.runner import DrillPlan
    from poolproof.drill.tally import Number, Row

HEADS: Final = ("incident", "driver", "measure")
_FAULT: Final = "* "
_TOLD_MAX: Final = 5
_LEGEND: Final = (
    "* a fault, which poolproof.Pool must never show; the other lines only count"
)
_BY_DRILL: Final = "(…) the drill's own doing, which is no fault of the pool"


@dataclass(frozen=True, slots=True)
class Detail:
    """One line: an incident's measure with one driver, and a value for each pool."""

    heads: tuple[str, str, str]
    """As in `HEADS`; empty where it says the same as the line above."""

    measure: Measure
    values: tuple[Number | None, ...]
    texts: tuple[str, ...]

    def is_fault(self, number: int) -> bool:
        """Whether one pool's value is a fault, or would be one."""
        return self.measure.is_fault and not self.texts[number].startswith("(")


def details(rows: Sequence[Row], pools: Sequence[str]) -> Iterator[Detail]:
    """Yield the lines, in the order of the incidents."""
    by_cell = {(r.cell.incident.name, r.cell.driver, r.cell.pool): r for r in rows}
    groups = dict.fromkeys((r.cell.incident.name, r.cell.driver) for r in rows)
    last = ""
    for incident, driver in groups:
        here = [by_cell[incident, driver, pool] for pool in pools]
        for number, measure in enumerate(measures_of(here)):
            heads = (
                incident if incident != last else "",
                driver if number == 0 else "",
                label(measure),
            )
            values = tuple(value(row, measure) for row in here)
            yield Detail(
                heads, measure, values, tuple(shown(row, measure) for row in here)
            )
            last = incident


def measures_of(rows: Sequence[Row]) -> tuple[Measure, ...]:
    """Return the measures of one incident's rows; crashes only if there were some."""
    measures = rows[0].cell.incident.measures
    if any(row.crashes for row in rows):
        return (*measures, Measure("crashes", "crashed trials", is_fault=True))
    return measures


def label(measure: Measure) -> str:
    """Return a measure's name, and whether it is a fault, or better when larger."""
    mark = _FAULT if measure.is_fault else "  "
    return f"{mark}{measure.label}{' (more is right)' if measure.more_is_right else ''}"


def value(row: Row, measure: Measure) -> Number | None:
    """Return a row's value, its crashes included."""
    return row.crashes if measure.field == "crashes" else row.value(measure)


def shown(row: Row, measure: Measure) -> str:
    """Return a row's value as people read it; in brackets what the drill has done."""
    number = value(row, measure)
    if number is None:
        return "–"
    text = f"{number:,.2f}" if measure.unit == ": 1" else f"{number:,.0f}"
    text = f"{text} {measure.unit}".rstrip()
    return f"({text})" if row.is_apart(measure) and number else text


def told(rows: Sequence[Row]) -> Iterator[str]:
    """Yield what the callers of each row were told, most frequent first."""
    for row in rows:
        texts = list(row.heard.items())[:_TOLD_MAX]
        if texts:
            cell = row.cell
            yield f"{cell.incident.name} with {cell.driver} on {TITLES[cell.pool]}:"
            yield from (f"{count:6,} × {text}" for text, count in texts)


def remarks(plan: DrillPlan) -> list[str]:
    """Return what the table does not say by itself: the legend, and notes."""
    notes = [f"{one.name}: {one.note}" for one in plan.incidents if one.note]
    return [_LEGEND, _BY_DRILL, *notes]


def in_one_line(row: Row) -> str:
    """Return a finished row in one line, every measure included."""
    counts = [
        f"{measure.label} {shown(row, measure)}" for measure in measures_of([row])
    ]
    cell = row.cell
    return (
        f"{cell.incident.name} {cell.driver} {TITLES[cell.pool]}:"
        f" {counted(row.wanted, 'trial')}, {row.seconds / row.wanted:.1f} s each:"
        f" {', '.join(counts)}"
    )
