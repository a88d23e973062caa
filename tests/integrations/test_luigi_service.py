"""Luigi over a pipeline: no answer wrong, no row lost or too many, no task lost."""

from __future__ import annotations

import pytest

from poolproof.drill.service import MEASURES
from poolproof.drill.services.luigi import serve

pytestmark = pytest.mark.slow

TASKS = 200
SOME = 50  # two of each kind that ends badly
FAULTS = [measure.field for measure in MEASURES if measure.is_fault]


def assert_well(outcome):
    """Assert that nothing went wrong, and that there was something to go wrong."""
    found = {name: getattr(outcome, name) for name in FAULTS}
    assert found == dict.fromkeys(FAULTS, 0), outcome.samples
    assert outcome.sessions >= 3


def test_no_task_is_lost(make_stage):
    outcome = serve(make_stage(), tasks=SOME)
    assert_well(outcome)
    # One fact for each task, and one for every fifth, which also rolls back: but for
    # those that fail (19, 39, …) or are killed (24, 49, …).
    assert outcome.asked == SOME + SOME // 5


@pytest.mark.soak
@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"])
@pytest.mark.parametrize("workers", [2, 4, 8])
def test_no_task_is_lost_with_any_driver_and_many_workers(make_stage, driver, workers):
    assert_well(serve(make_stage(driver), tasks=TASKS, workers=workers))


@pytest.mark.soak  # test_gunicorn_service.py shows the same, sooner
def test_the_fault_shows_with_queuepool(make_stage):
    outcome = serve(make_stage(pool="queue"), tasks=24, patience_s=3.0)
    assert sum(getattr(outcome, name) for name in FAULTS) > 0
    assert outcome.wrong + outcome.failed + outcome.hangs > 0
