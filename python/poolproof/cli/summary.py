"""What a drill came to: ten lines at most, what callers were told, and a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from poolproof.drill.incidents import FAMILIES, INCIDENTS
from poolproof.drill.traffic import added_up

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from poolproof.drill.incidents import Family
    from poolproof.drill.runner import DrillPlan
    from poolproof.drill.tally import Row

TITLES: Final = {"queue": "QueuePool", "poolproof": "poolproof.Pool"}
"""What people call the pools."""

_TOLD_OF_FAMILY: Final = 2
_TOLD_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class Figure:
    """What one pool showed in one family: one number, and what is not its doing."""

    harm: int
    faults: int
    apart: int

    @property
    def text(self) -> str:
        """The number as people read it; what the drill itself did in brackets."""
        apart = f"({self.apart:,})" if self.apart else ""
        return apart if apart and not self.harm else f"{self.harm:,} {apart}".rstrip()


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the summary: a family, and a cell for each pool."""

    family: Family
    cells: tuple[Figure, ...]


def lines(rows: Sequence[Row], pools: Iterable[str]) -> list[Line]:
    """Return the summary's lines, one for each family of which something was played.

    Args:
        rows: Every row, in any order.
        pools: In the order of the columns.
    """
    found = []
    for family in FAMILIES:
        here = [row for row in rows if row.cell.incident in family.incidents]
        if here:
            cells = (_cell(row for row in here if row.cell.pool == p) for p in pools)
            found.append(Line(family, tuple(cells)))
    return found


def _cell(rows: Iterable[Row]) -> Figure:
    every = list(rows)
    return Figure(
        harm=sum(row.harm for row in every),
        faults=sum(row.faults for row in every),
        apart=sum(row.apart for row in every),
    )


def told(rows: Sequence[Row]) -> list[tuple[int, str]]:
    """Return what QueuePool's callers were told, with how often, of each family some.

    What the drill itself brought about is left out.
    """
    found: list[dict[str, int]] = []
    for family in FAMILIES:
        here = [
            row
            for row in rows
            if row.cell.incident in family.incidents
            and row.cell.pool == "queue"
            and not any(measure.by_drill for measure in row.cell.incident.measures)
        ]
        of_family = list(added_up(*(row.heard for row in here)).items())
        found.append(dict(of_family[:_TOLD_OF_FAMILY]))
    every = added_up(*found)
    in_order = dict.fromkeys(text for texts in found for text in texts if text in every)
    return [(every[text], text) for text in in_order][:_TOLD_MAX]


def verdict(
    rows: Sequence[Row], plan: DrillPlan, left_out: Iterable[str], seconds: float
) -> list[str]:
    """Return what was proved, and of each fault of ours where to look.

    Args:
        rows: Every row, all trials in.
        plan: What was played: nothing is claimed of anything else.
        left_out: Incidents that this machine cannot play.
        seconds: How long it took.
    """
    ours = [row for row in rows if row.cell.pool == "poolproof"]
    queue = [row for row in rows if row.cell.pool == "queue"]
    played = _played(plan, list(left_out))
    parts = []
    if ours:
        count = sum(row.faults for row in ours)
        shown = counted(count, "fault") if count else "no fault"
        parts.append(f"poolproof.Pool showed {shown} in {played}")
    if queue:
        there = "" if parts else f" in {played}"
        count = sum(row.faults for row in queue)
        parts.append(f"QueuePool showed {counted(count, 'fault')}{there}")
    said = [f"{'; '.join(parts)} ({seconds:.0f} s)"]
    for row in ours:
        if row.faults:
            said += _where_to_look(row, plan)
    return said


def _played(plan: DrillPlan, left_out: list[str]) -> str:
    """Say what was played: by name, where it was not everything."""
    names = [incident.name for incident in plan.incidents]
    if not {*INCIDENTS} - {*names}:
        return f"all {len(names)} incidents"
    if not {*INCIDENTS} - {*names, *left_out}:
        return f"{counted(len(names), 'incident')} (left out: {', '.join(left_out)})"
    return f"{counted(len(names), 'incident')} ({', '.join(names)})"


def _where_to_look(row: Row, plan: DrillPlan) -> Iterator[str]:
    """Name a row's faults, their numbers, and how to see them again."""
    cell = row.cell
    faults = ", ".join(f"{label} {count:,}" for label, count in row.culprits.items())
    yield (
        f"  {cell.incident.name} with {cell.driver}: {faults}"
        f" (in {counted(row.wanted, 'trial')})"
    )
    for sample in row.samples[:1]:
        yield f"    seen: {' '.join(sample.split())[:160]}"
    full = " --full" if plan.full else ""
    yield (
        f"    again: poolproof drill --verbose{full} --incident {cell.incident.name}"
        f" --driver {cell.driver} --trials {row.wanted} --seed {plan.seed}"
    )


def counted(number: int, noun: str) -> str:
    """Return a number of things in words: ``1 trial``, ``2 trials``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
