"""What `lease-reaped` counts is counted when it happens."""

from __future__ import annotations

import dataclasses

import pytest
from sqlalchemy import text

from plugins.threads import eventually
from poolproof.drill.incidents import lease_reaped
from poolproof.drill.incidents.lease_reaped import Worker, overlaps, set_up, settle
from poolproof.drill.troupe import Troupe

TAKE = {
    "queue": "UPDATE worker_lock SET holder = 'a thief'",
    "poolproof": (
        "UPDATE poolproof_lease SET fence = DEFAULT, token = 'a thief',"
        " expires_at = clock_timestamp() + interval '1 hour'"
    ),
}
STEPS = "SELECT count(*) FROM step"


@pytest.fixture(params=["queue", "poolproof"])
def stage(stage, request):
    own = dataclasses.replace(stage, pool=request.param)
    set_up(own)
    yield own
    with own.witness().begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS poolproof_lease"))
        connection.execute(text("DROP TABLE worker_lock, step"))


def steps(stage) -> int:
    with stage.witness().connect() as connection:
        return connection.execute(text(STEPS)).scalar_one()


def work(stage, meanwhile=None, *, target=None, begin_s=3.0):
    """Have one worker work, directly on the server; return what was counted."""
    worker = Worker(stage, target or stage.target, "a lease", begin_s)
    with Troupe(stall_s=20) as troupe:
        troupe.thread("a lease/0", worker.act)
        if meanwhile is not None:
            troupe.thread("a lease/1", lambda _report: meanwhile())
        troupe.watch()
    return settle(stage, troupe, 0)


def test_work_that_nothing_happens_to_is_finished(stage):
    counted = work(stage)
    assert counted.begun == counted.finished == 1
    assert counted.needless == counted.barren == counted.twice == counted.stale == 0
    assert counted.restarts == counted.failed == counted.hangs == 0
    assert steps(stage) > 0


def test_work_that_never_begins_is_a_fault(stage, monkeypatch):
    monkeypatch.setattr(lease_reaped, "LIVES", 2)
    # Its last life is the end of it; a busy machine needs long for the first engine.
    counted = work(stage, target=stage.target.through(1), begin_s=60.0)
    assert (counted.begun, counted.barren) == (0, 1)
    assert counted.restarts == counted.failed == 2


def test_a_lease_that_another_took_is_told_from_one_that_was_lost_for_nothing(stage):
    """And with a plain lock, what was written before its holder heard of it is told."""

    def take() -> None:
        eventually(lambda: steps(stage) > 2)
        with stage.witness().begin() as connection:
            assert connection.execute(text(TAKE[stage.pool])).rowcount == 1

    counted = work(stage, take)
    assert (counted.begun, counted.finished, counted.restarts) == (1, 0, 1)
    assert (counted.needless, counted.barren) == (0, 1)
    assert (counted.stale > 0) == (stage.pool == "queue")


def test_two_who_hold_a_lease_at_once_are_counted():
    assert overlaps([]) == 0
    assert overlaps([(1, 2), (2, 3), (3, 3)]) == 0
    assert overlaps([(5, 6), (1, 2), (1.5, 3)]) == 1
    assert overlaps([(1, 9), (2, 3), (4, 5)]) == 2
