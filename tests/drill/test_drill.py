"""The drill itself: it sees what breaks a QueuePool, and poolproof.Pool holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from plugins.drills import play
from poolproof.drill.incidents import starvation
from poolproof.drill.target import DRIVERS


@pytest.mark.parametrize(
    "drivers",
    [DRIVERS[:1], pytest.param(DRIVERS, marks=pytest.mark.soak)],
    ids=["one driver", "every driver"],
)
def test_what_happens_at_a_fork_is_seen_and_told_and_poolproof_holds(url, drivers):
    """One run for all of it: each trial takes its time."""
    incidents = ("--incident=fork", "--incident=held-at-fork")
    chosen = (f"--driver={driver}" for driver in drivers)
    trials = min(2, len(drivers))
    run = play(url, f"--trials={trials}", "--verbose", *incidents, *chosen)
    _, report, _ = run
    totals = {
        (row["incident"], row["driver"], row["pool"]): row["totals"]
        for row in report["rows"]
    }
    sharing_a_queuepool_goes_wrong(totals, drivers)
    a_child_of_a_queuepool_rolls_its_parent_back(totals, drivers)
    poolproof_holds(totals, drivers)
    a_run_without_a_fault_of_poolproof_passes(run)
    json_says_what_was_run_and_holds_every_trial(run, drivers, trials)
    json_on_stdout_leaves_the_table_to_stderr(run)


def sharing_a_queuepool_goes_wrong(totals, drivers):
    # In silence as a rule; one driver may come off with errors alone by chance.
    silent = 0
    for driver in drivers:
        counts = totals["fork", driver, "queue"]
        assert counts["errors"] > 0
        silent += counts["wrong"] + counts["lost"] + counts["ghosts"] + counts["hangs"]
    assert silent > 0 or len(drivers) == 1


def a_child_of_a_queuepool_rolls_its_parent_back(totals, drivers):
    for driver in drivers:
        counts = totals["held-at-fork", driver, "queue"]
        assert counts["lost"] > 0
        assert counts["parent_errors"] > 0


def poolproof_holds(totals, drivers):
    for driver in drivers:
        for incident in ("fork", "held-at-fork"):
            assert set(totals[incident, driver, "poolproof"].values()) == {0}


def a_run_without_a_fault_of_poolproof_passes(run):
    status, report, _ = run
    assert status == 0
    assert report["passed"] is True
    assert report["faults"]["poolproof"] == 0
    assert report["faults"]["queue"] > 0


def json_says_what_was_run_and_holds_every_trial(run, drivers, trials):
    _, report, _ = run
    assert set(report) == {
        *("schema", "started", "seconds", "seed", "trials", "versions", "rows"),
        *("left_out", "faults", "passed", "full", "machine"),
    }
    assert set(report["versions"]) == {
        *("poolproof", "python", "sqlalchemy", "postgresql"),
        *drivers,
    }
    assert len(report["rows"]) == 2 * len(drivers) * 2
    for row in report["rows"]:
        assert set(row) == {
            *("incident", "driver", "pool", "trials", "crashes", "faults"),
            *("seconds", "totals", "samples", "outcomes", "harm", "apart", "heard"),
            *("spans", "took_ms"),
        }
        assert [outcome["trial"] for outcome in row["outcomes"]] == [*range(trials)]
        assert set(row["totals"]) <= set(row["outcomes"][0])


def json_on_stdout_leaves_the_table_to_stderr(run):
    _, _, err = run
    assert "QueuePool   poolproof" in err


@pytest.mark.alone
def test_a_crowd_starves_at_a_queuepool_and_not_at_poolproof(stage):
    queue, ours = (
        starvation.play(replace(stage, pool=pool)) for pool in ("queue", "poolproof")
    )
    assert queue.served_ratio > 5
    assert queue.longest_wait_ms > 100
    assert ours.never_served == ours.hangs == 0
    assert ours.longest_wait_ms < queue.longest_wait_ms


@pytest.mark.parametrize(
    "drivers", [DRIVERS[:1], pytest.param(DRIVERS, marks=pytest.mark.soak)], ids=len
)
def test_stray_bytes_in_a_queuepool_fail_later_requests(url, drivers):
    chosen = [f"--driver={driver}" for driver in drivers]
    args = ("--incident=corruption", "--trials=4", "--pool=queue", *chosen)
    status, report, _ = play(url, *args)
    assert status == 0
    assert report["passed"] is None
    for row in report["rows"]:
        assert [outcome["trial"] for outcome in row["outcomes"]] == [0, 1, 2, 3]
    failed = {row["driver"]: row["totals"]["failed"] for row in report["rows"]}
    assert set(failed) == set(drivers)
    assert min(failed.values()) > 1


def test_the_same_seed_plays_the_same_chances(stage):
    again = replace(stage, pool="poolproof")
    assert stage.rng.random() == again.rng.random()
    assert stage.rng.random() != replace(stage, seed=2).rng.random()
