"""What people read: a summary that fits, honest numbers, and a verdict that points."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import pytest

from poolproof.cli import details, summary
from poolproof.cli.render import Display
from poolproof.cli.report import markdown
from poolproof.drill.incidents import FAMILIES, INCIDENTS
from poolproof.drill.runner import DrillPlan
from poolproof.drill.stage import POOLS
from poolproof.drill.tally import Row

RECORD = (
    "DatabaseError: error with status PGRES_TUPLES_OK and no message from the libpq"
)


def plan_of(*incidents: str, pools: tuple[str, ...] = POOLS) -> DrillPlan:
    return DrillPlan(
        incidents=tuple(INCIDENTS[name] for name in incidents or INCIDENTS),
        drivers=("psycopg2",),
        pools=pools,
        trials=1,
        seed=7,
        jobs=1,
    )


def rows_of(plan: DrillPlan, **counts: dict[str, int]) -> list[Row]:
    """Return rows of which QueuePool's and ours have these counts, and 0 otherwise."""
    rows = plan.rows()
    for row in rows:
        fields = {measure.field: 0 for measure in row.cell.incident.measures}
        outcome = {**fields, **counts.get(row.cell.pool, {})}
        known = {name: outcome[name] for name in fields}
        row.outcomes[0] = {**known, "samples": [], "heard": {}}
    return rows


def seen(width: int, rows: Sequence[Row], plan: DrillPlan) -> str:
    stream = io.StringIO()
    display = Display(stream, width=width)
    display.summary(rows, plan)
    return stream.getvalue()


@pytest.mark.parametrize("width", [60, 80])
def test_the_summary_has_ten_lines_at_most_and_no_name_is_cut(width):
    plan = plan_of()
    shown = seen(width, rows_of(plan, queue={"wrong": 1234}), plan)
    table = shown.strip().partition("\n(…)")[0].splitlines()
    assert len(table) <= 11  # with its head
    assert max(map(len, table)) <= width
    assert "…" not in "".join(table)
    for family in FAMILIES:
        assert re.search(f"^{family.name} +{family.harm}", shown, re.MULTILINE)


def test_each_incident_is_in_one_line_of_the_summary():
    names = [one.name for family in FAMILIES for one in family.incidents]
    assert sorted(names) == sorted(set(names)) == sorted(INCIDENTS)
    assert len(FAMILIES) <= 10


def test_what_the_drill_itself_does_is_shown_apart_and_no_fault_of_queuepool():
    plan = plan_of("hang")
    rows = rows_of(plan, queue={"overdue": 48}, poolproof={"overdue": 2})
    (line,) = summary.lines(rows, POOLS)
    assert [cell.text for cell in line.cells] == ["(48)", "2"]
    assert [row.faults for row in rows] == [0, 2]
    assert [row.apart for row in rows] == [48, 0]
    assert "the drill's own doing" in seen(80, rows, plan)


def test_a_column_where_more_is_right_says_so():
    plan = plan_of("hang", "starvation")
    labels = [line.heads[2] for line in details.details(rows_of(plan), POOLS)]
    assert "  calls that failed, as they must (more is right)" in labels
    assert "  requests served (more is right)" in labels
    assert "* wrong results" in labels


def test_what_callers_were_told_is_counted_and_what_the_drill_did_is_left_out():
    plan = plan_of("fork", "hang")
    rows = rows_of(plan)
    for row in rows:
        text = RECORD if row.cell.incident.name == "fork" else "ended by the drill"
        row.outcomes[0]["heard"] = {text: 23}
    assert summary.told(rows) == [(23, RECORD)]
    words = " ".join(seen(60, rows, plan).split())
    assert f"23 × {RECORD}" in words


def test_the_verdict_counts_faults_and_names_what_was_played():
    plan = plan_of("fork", "interrupt")
    rows = rows_of(plan, queue={"wrong": 600})
    (said,) = summary.verdict(rows, plan, [], 3.2)
    assert said == (
        "poolproof.Pool showed no fault in 2 incidents (fork, interrupt);"
        " QueuePool showed 1,200 faults (3 s)"
    )
    alone = plan_of("fork", "interrupt", pools=("queue",))
    assert summary.verdict(rows_of(alone), alone, [], 3) == [
        "QueuePool showed 0 faults in 2 incidents (fork, interrupt) (3 s)"
    ]


def test_the_verdict_names_incident_and_measure_and_says_where_to_look():
    plan = plan_of("fork", "interrupt")
    rows = rows_of(plan)
    ours = next(row for row in rows if row.cell.pool == "poolproof")
    ours.outcomes[0] |= {"wrong": 2, "hangs": 1, "samples": ["asked for a, got b"]}
    said = summary.verdict(rows, plan, [], 3)
    assert "poolproof.Pool showed 3 faults" in said[0]
    assert said[1] == "  fork with psycopg2: wrong results 2, hangs 1 (in 1 trial)"
    assert said[2] == "    seen: asked for a, got b"
    assert said[3] == (
        "    again: poolproof drill --verbose --incident fork"
        " --driver psycopg2 --trials 1 --seed 7"
    )


def test_everything_is_said_short_and_what_was_left_out_is_named():
    plan = plan_of()
    assert (
        f"in all {len(INCIDENTS)} incidents"
        in summary.verdict(rows_of(plan), plan, [], 3)[0]
    )
    rest = plan_of(*(name for name in INCIDENTS if name != "blackhole"))
    assert (
        "(left out: blackhole)"
        in summary.verdict(rows_of(rest), rest, ["blackhole"], 3)[0]
    )


def test_a_report_has_the_summary_every_count_and_the_versions():
    plan = plan_of("fork", "hang")
    rows = rows_of(plan, queue={"wrong": 3})
    facts = {"started": "2026-01-01T00:00:00", "versions": {"postgresql": "18"}}
    text = markdown(rows, plan, ["poolproof.Pool showed no fault"], facts)
    assert "| forks | wrong, lost or hung | 3 | 0 |" in text
    assert "| fork | psycopg2 | \\* wrong results | 3 | 0 |" in text
    assert "postgresql 18" in text


def test_a_narrow_terminal_cuts_no_name_of_the_details():
    plan = plan_of("commit-lost", "hang")
    stream = io.StringIO()
    Display(stream, width=60).details(plan.rows(), plan)
    shown = stream.getvalue()
    assert "commit-lost" in shown
    assert "psycopg2" in shown
    assert "the drill ends its calls" in " ".join(shown.split())
