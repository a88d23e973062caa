"""A drill's report as one page for a browser: no script, nothing from elsewhere."""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from poolproof.cli import details, summary
from poolproof.cli.summary import TITLES
from poolproof.drill.errors import SetupError
from poolproof.drill.incidents import INCIDENTS
from poolproof.drill.latency import MORE, STEPS, percentile, together

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from poolproof.drill.incident import Measure
    from poolproof.drill.runner import DrillPlan
    from poolproof.drill.tally import Row

KINDS: Final = ("wrong answers", "lost rows", "hangs", "failures")
"""What can go wrong, in a user's words; the last is all that is none of the others."""

_KIND_OF: Final = {
    "wrong": "wrong answers",
    "lost": "lost rows",
    "ghosts": "lost rows",
    "hangs": "hangs",
    "overdue": "hangs",
    "unusable": "hangs",
}
_TICKS: Final = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
_TICKS_MOST: Final = 8


@dataclass(frozen=True, slots=True)
class Lane:
    """One pool in one incident: what went wrong, when it was played, how long it took.

    Attributes:
        pool: Its name for people.
        key: ``"queue"`` or ``"poolproof"``.
        counts: How often each of `KINDS` happened.
        apart: What of that is the drill's own doing.
        spans: When it was played: per cent of the drill's time, begin and length.
        bars: Of each step of `latency.STEPS`, the share of all calls in per cent.
        calls: How many calls were timed.
        half: The step below whose end half of them came back, and `most` 99 per cent.
        most: See `half`.
    """

    pool: str
    key: str
    counts: dict[str, int]
    apart: int
    spans: list[tuple[float, float]]
    bars: list[float]
    calls: int
    half: str
    most: str

    @property
    def harm(self) -> int:
        """How often anything went wrong."""
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class Story:
    """One incident: its name, what happens in it, and a lane for each pool."""

    name: str
    headline: str
    lanes: list[Lane]

    @property
    def is_timed(self) -> bool:
        """Whether any of its calls were timed."""
        return any(lane.calls for lane in self.lanes)


def check() -> None:
    """See that a page can be made, before anything is played.

    Raises:
        SetupError: Jinja is not installed.
    """
    try:
        import jinja2  # noqa: F401, PLC0415 - of the extra
    except ImportError:
        raise SetupError(
            "a report as a page needs Jinja: pip install jinja2 (or name a file that"
            " does not end in .html, for Markdown)"
        ) from None


def page(
    rows: Sequence[Row], plan: DrillPlan, said: Sequence[str], facts: dict[str, Any]
) -> str:
    """Return the page.

    Args:
        rows: Every row, all trials in.
        plan: What was played.
        said: The verdict, line by line.
        facts: The report as plain data, for its date, its versions and its seed.
    """
    import jinja2  # noqa: PLC0415 - of the extra

    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = importlib.resources.files("poolproof.cli").joinpath("page.html")
    seconds = max((end for row in rows for _, end in row.spans), default=0.0) or 1.0
    families = summary.lines(rows, plan.pools)
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        said=said,
        facts=facts,
        plan=plan,
        pools=[(TITLES[pool], pool) for pool in plan.pools],
        families=families,
        totals=[sum(line.cells[n].harm for line in families) for n in _numbers(plan)],
        told=summary.told(rows),
        stories=list(_stories(rows, plan, seconds)),
        ticks=list(_ticks(seconds)),
        kinds=KINDS,
        steps=[_within(step) for step in STEPS],
        heads=details.HEADS,
        details=details.details(rows, plan.pools),
        remarks=details.remarks(plan),
    )


def _numbers(plan: DrillPlan) -> range:
    return range(len(plan.pools))


def _stories(rows: Sequence[Row], plan: DrillPlan, seconds: float) -> Iterator[Story]:
    """Yield the incidents in the order of the drill's tables, all drivers together."""
    for incident in INCIDENTS.values():
        here = [row for row in rows if row.cell.incident is incident]
        if here:
            lanes = [
                _lane([row for row in here if row.cell.pool == pool], pool, seconds)
                for pool in plan.pools
            ]
            yield Story(incident.name, incident.headline, lanes)


def _lane(rows: Sequence[Row], pool: str, seconds: float) -> Lane:
    took = together(*(row.took for row in rows))
    calls = sum(took.values())
    return Lane(
        pool=TITLES[pool],
        key=pool,
        counts=_counts(rows),
        apart=sum(row.apart for row in rows),
        spans=[
            (100 * begun / seconds, 100 * (ended - begun) / seconds)
            for row in rows
            for begun, ended in row.spans
        ],
        bars=[100 * took.get(step, 0) / calls for step in STEPS] if calls else [],
        calls=calls,
        half=_within(percentile(took, 0.5)) if calls else "",
        most=_within(percentile(took, 0.99)) if calls else "",
    )


def _counts(rows: Iterable[Row]) -> dict[str, int]:
    """Count what went wrong for callers by kind."""
    counts = dict.fromkeys(KINDS, 0)
    for row in rows:
        counts[KINDS[-1]] += row.crashes
        for measure in row.cell.incident.measures:
            if _counts_as_harm(row, measure):
                kind = _KIND_OF.get(measure.field, KINDS[-1])
                counts[kind] += int(row.value(measure) or 0)
    return counts


def _counts_as_harm(row: Row, measure: Measure) -> bool:
    return (measure.is_fault or measure.is_harm) and not row.is_apart(measure)


def _within(step: str) -> str:
    """Say a step in words: ``5 ms``, ``2 s``."""
    if step == MORE:
        return f"over {_within(STEPS[-2])}"
    number = int(step)
    return f"{number} ms" if number < 1000 else f"{number // 1000} s"  # noqa: PLR2004


def _ticks(seconds: float) -> Iterator[tuple[float, str]]:
    """Yield where the axis of time has a tick, in per cent, and what stands there."""
    step = next((t for t in _TICKS if seconds / t <= _TICKS_MOST), _TICKS[-1])
    for n in range(int(seconds // step) + 1):
        yield 100 * n * step / seconds, f"{n * step} s"
