"""Each incident breaks a QueuePool, or costs it dearly; poolproof.Pool holds."""

from __future__ import annotations

import pytest

from plugins.drills import play
from plugins.server import unavailable
from poolproof.drill import namespace, pooler
from poolproof.drill.incidents import INCIDENTS
from poolproof.drill.target import DRIVERS

drivers = pytest.mark.parametrize(
    "driver",
    ["psycopg2", *(pytest.param(name, marks=pytest.mark.soak) for name in DRIVERS[1:])],
)


def totals(url: str, incident: str, driver: str, *args: str) -> tuple[dict, dict]:
    """Play an incident once with each pool; return what was counted."""
    report, queue, ours = rows(url, incident, driver, *args)
    assert not report["faults"]["poolproof"], ours
    return queue["totals"], ours["totals"]


def rows(url: str, incident: str, driver: str, *args: str) -> tuple[dict, dict, dict]:
    """Play an incident once with each pool; return the report and its two rows."""
    _, report, err = play(
        url, f"--incident={incident}", f"--driver={driver}", "--trials=1", *args
    )
    assert report["rows"], err
    queue, ours = report["rows"]
    assert not ours["crashes"]
    return report, queue, ours


def totals_of_an_outage(url: str, incident: str, driver: str) -> tuple[dict, dict]:
    """Play an outage; what takes milliseconds by itself is not judged beside others."""
    _, queue, ours = rows(url, incident, driver)
    counts = ours["totals"]
    assert not counts["wrong"] + counts["lost"] + counts["ghosts"], ours
    assert counts["overdue"] < counts["calls"] / 2, ours
    assert counts["late_ms"] < 5000
    assert counts["whole_ms"] < 10_000
    return queue["totals"], counts


@drivers
def test_a_silent_peer_holds_a_queuepool_for_ever(url, driver):
    queue, ours = totals_of_an_outage(url, "hang", driver)
    assert queue["overdue"] == queue["calls"] == ours["calls"] == 48


@pytest.mark.soak  # a silent peer is as silent; test_namespace.py loses packets
def test_lost_packets_hold_a_queuepool_for_ever(url):
    if (lacking := namespace.lacks()) is not None:
        pytest.skip(lacking)
    queue, ours = totals_of_an_outage(url, "blackhole", "psycopg2")
    assert queue["overdue"] == queue["calls"] == ours["calls"] == 32


def test_a_reaped_connection_costs_no_request_and_no_ping_of_a_busy_one(url):
    if pooler.program() is None:
        unavailable("no PgBouncer: install Debian's package 'pgbouncer'")
    _, queue, ours = rows(url, "reap", "psycopg2")
    queue, ours = queue["totals"], ours["totals"]
    assert min(queue["reaped"], ours["reaped"]) > 0
    assert not ours["wrong"] + ours["lost"] + ours["ghosts"] + ours["hangs"], ours
    # The machine may pause between the look and the query, for as long as the reaper's
    # patience lasts; and the connections then rest for longer, and are asked.
    assert ours["failed"] <= 1
    assert ours["queries"] < queue["queries"]


@pytest.mark.soak  # tests/drill/test_lease_reaped.py has what it counts
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_reaped_refresh_costs_a_plain_lock_and_no_lease(url, driver):
    if pooler.program() is None:
        unavailable("no PgBouncer: install Debian's package 'pgbouncer'")
    queue, ours = totals(url, "lease-reaped", driver)
    assert min(queue["reaped"], ours["reaped"]) > 0
    assert queue["restarts"] >= queue["needless"] > 0
    assert ours["finished"] == ours["begun"] > 0


def test_an_ended_session_costs_a_queuepool_the_others_too(url):
    queue, ours = totals(url, "terminate", "psycopg2")
    assert queue["innocent"] > 0
    assert queue["victims"] == ours["victims"] == 1


@pytest.mark.parametrize("trials", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_a_restart_loses_nothing_and_fails_nobody_when_it_is_over(url, trials):
    """The first trial's server is shut down fast, the second's at once."""
    queue, ours = totals(url, "restart", "psycopg2", f"--trials={trials}")
    assert queue["lost"] == ours["lost"] == 0
    assert queue["failed"] > 0
    assert queue["knocks"] > ours["knocks"]


def test_an_interruption_leaves_an_answer_to_later_requests_of_pg8000(url):
    queue, ours = totals(url, "interrupt", "pg8000")
    assert queue["failed"] + queue["wrong"] > 0
    assert ours["interrupted"] + ours["masked"] == 12


@pytest.mark.parametrize(
    "driver", [pytest.param("psycopg2", marks=pytest.mark.soak), "pg8000"]
)
def test_a_stale_answer_reaches_later_requests_of_a_queuepool(url, driver):
    queue, ours = totals(url, "stale-answer", driver)
    assert queue["failed"] > ours["failed"]
    assert ours["wrong"] == 0
    if driver == "pg8000":
        assert queue["wrong"] > 0


def test_an_incident_that_cannot_be_played_is_left_out_with_a_line(url, tmp_path):
    # Neither PgBouncer nor ip on the path, and the rights to neither.
    status, report, err = play(
        url,
        *("--incident=terminate", "--incident=blackhole", "--trials=1"),
        *("--driver=psycopg2", "--pool=queue"),
        PATH=str(tmp_path),
    )
    assert status == 0
    assert "blackhole is left out: no program ip" in err
    assert {row["incident"] for row in report["rows"]} == {"terminate"}
    assert list(report["left_out"]) == ["blackhole"]


def test_nothing_is_proved_when_nothing_can_be_played(poolproof, url, tmp_path):
    done = poolproof(
        "drill", f"--url={url}", "--incident=blackhole", PATH=str(tmp_path)
    )
    assert done.status == 2
    assert "nothing can be played" in done.err


def test_every_incident_says_in_its_measures_what_is_a_fault():
    for incident in INCIDENTS.values():
        assert any(measure.is_fault for measure in incident.measures), incident.name


@drivers
def test_a_lost_answer_to_a_commit_has_the_work_done_twice_by_a_plain_loop(url, driver):
    queue, ours = totals(url, "commit-lost", driver, "--trials=1", "--seed=5")
    assert queue["twice"] > 0
    assert ours["attempts"] > ours["units"]


def test_tasks_that_are_cancelled_and_loops_that_share_cost_a_queuepool_and_not_us(url):
    chosen = ("cancel-storm", "two-loops", "asgi")
    incidents = (f"--incident={name}" for name in chosen)
    _, report, err = play(url, *incidents, "--driver=psycopg2", "--trials=1")
    assert not report["left_out"]
    found = {
        (row["incident"], row["pool"]): (row["driver"], row["totals"])
        for row in report["rows"]
    }
    assert len(found) == 6, err
    assert not report["faults"]["poolproof"], report["rows"]
    for name, driver in zip(chosen, ("psycopg", "asyncpg", "asyncpg"), strict=True):
        assert found[name, "poolproof"][0] == found[name, "queue"][0] == driver
    assert found["cancel-storm", "queue"][1]["held"] > 0
    assert found["cancel-storm", "poolproof"][1]["cut_off"] > 0
    # None where its trial came to no end: the loops wait for one another's.
    assert found["two-loops", "queue"][1]["failed"] != 0
    assert found["asgi", "queue"][1]["failed"] > 0
    assert found["asgi", "poolproof"][1]["unknown"] == 20


@pytest.mark.soak
@pytest.mark.parametrize("name", ["cancel-storm", "two-loops", "asgi"])
def test_incidents_of_asyncio_at_full_length_show_no_fault_of_ours(url, name):
    chosen = ("--full", "--trials=1", "--pool=poolproof", f"--incident={name}")
    status, report, err = play(url, *chosen)
    assert status == 0, (report["rows"], err)
    assert {row["driver"] for row in report["rows"]} == {"asyncpg", "psycopg"}
