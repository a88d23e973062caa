"""A drill's report as Markdown: for a ticket, a wiki, a colleague."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poolproof.cli import details, summary
from poolproof.cli.summary import TITLES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from poolproof.drill.runner import DrillPlan
    from poolproof.drill.tally import Row


def markdown(
    rows: Sequence[Row], plan: DrillPlan, said: Sequence[str], facts: dict[str, Any]
) -> str:
    """Return the report.

    Args:
        rows: Every row, all trials in.
        plan: What was played.
        said: The verdict, line by line.
        facts: The report as plain data, for its date, its versions and its seed.
    """
    return "\n".join(_lines(rows, plan, said, facts)) + "\n"


def _lines(
    rows: Sequence[Row], plan: DrillPlan, said: Sequence[str], facts: dict[str, Any]
) -> Iterator[str]:
    versions = ", ".join(
        f"{name} {number}" for name, number in facts["versions"].items()
    )
    yield "# poolproof drill"
    yield ""
    yield f"**{said[0]}**"
    yield ""
    yield from (f"    {line}" for line in said[1:])
    yield f"{facts['started']}, seed {plan.seed}; {versions}."
    yield ""
    pools = [TITLES[pool] for pool in plan.pools]
    yield from _table(
        ("incidents", "what went wrong", *pools),
        (
            (line.family.name, line.family.harm, *(cell.text for cell in line.cells))
            for line in summary.lines(rows, plan.pools)
        ),
    )
    if told := summary.told(rows):
        yield "\n## What QueuePool's callers were told\n"
        yield from (
            f"- {count:,} × `{text.replace('`', chr(39))}`" for count, text in told
        )
    yield "\n## Every count\n"
    yield from _table(
        (*details.HEADS, *pools),
        (
            (*(head.strip().replace("* ", "\\* ") for head in line.heads), *line.texts)
            for line in details.details(rows, plan.pools)
        ),
    )
    yield ""
    yield from (f"- {remark.replace('* ', '')}" for remark in details.remarks(plan))


def _table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield a table's lines."""
    for line in (heads, ["---"] * len(heads), *lines):
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |"
