"""Gunicorn under load: every answer right, every row there, no session too many."""

from __future__ import annotations

import pytest

from poolproof.drill.service import MEASURES
from poolproof.drill.services.gunicorn import Setting, serve

pytestmark = pytest.mark.slow

REQUESTS = 2000
SOME = 200  # two of each kind that is rarest
KINDS = ("gthread", "sync", "gevent")
FAULTS = [measure.field for measure in MEASURES if measure.is_fault]


def faults(outcome):
    return {name: count for name in FAULTS if (count := getattr(outcome, name))}


def assert_well(outcome, requests):
    """Assert that nothing went wrong, and that everybody was there."""
    assert faults(outcome) == {}, outcome.samples
    assert outcome.asked == requests
    assert outcome.sessions > 0


@pytest.mark.parametrize(
    "kind",
    # Threads are at work where workers are killed.
    [
        pytest.param(kind, marks=[pytest.mark.soak] * (kind == "gthread"))
        for kind in KINDS
    ],
)
def test_every_answer_is_right_and_every_row_is_there(make_stage, kind):
    outcome = serve(make_stage(), Setting(kind=kind), requests=SOME)
    assert_well(outcome, SOME)
    assert outcome.unknown == 0


def test_killed_workers_cost_nothing_but_what_they_were_at(make_stage):
    outcome = serve(make_stage(), requests=SOME, kills=2)
    assert_well(outcome, SOME)


def test_with_queuepool_the_fault_shows(make_stage):
    outcome = serve(make_stage(pool="queue"), requests=200, patience_s=3)
    assert faults(outcome)


@pytest.mark.soak
@pytest.mark.parametrize("kills", [0, 2])
@pytest.mark.parametrize("preload", [True, False], ids=["preload", "no preload"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_with_every_driver_at_full_size(
    make_stage, driver, kind, preload, kills
):
    setting = Setting(kind=kind, preload=preload)
    outcome = serve(make_stage(driver), setting, requests=REQUESTS, kills=kills)
    assert_well(outcome, REQUESTS)
    assert kills or outcome.unknown == 0
