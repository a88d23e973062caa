"""Celery at work: tasks that end well, fail, are cut short, or are killed."""

from __future__ import annotations

import pytest

from plugins.server import unavailable
from poolproof.drill.service import MEASURES
from poolproof.drill.services.broker import redis_server
from poolproof.drill.services.celery import serve

pytestmark = pytest.mark.slow

TASKS = 500
SOME = 140  # two of each fate
FAULTS = [measure.field for measure in MEASURES if measure.is_fault]


def flawless(outcome, tasks):
    """See that nothing went wrong, and that everything was done."""
    assert {name: getattr(outcome, name) for name in FAULTS} == dict.fromkeys(
        FAULTS, 0
    ), outcome
    assert outcome.asked == tasks
    assert outcome.sessions > 0


@pytest.mark.quick("prefork")  # test_celery.py keeps the tasks of threads apart
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_every_answer_is_right_and_no_task_is_lost(make_stage, pool):
    outcome = serve(make_stage("psycopg2"), tasks=SOME, pool=pool, patience_s=60)
    flawless(outcome, SOME)


@pytest.mark.soak
@pytest.mark.parametrize("broker", ["redis", "files"])
@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"])
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_at_full_size_over_every_broker(make_stage, driver, pool, broker):
    if broker == "redis" and redis_server() is None:
        unavailable("no Redis: install Debian's package redis-server, and redis")
    outcome = serve(
        make_stage(driver), tasks=TASKS, pool=pool, broker=broker, patience_s=60
    )
    flawless(outcome, TASKS)


@pytest.mark.soak  # test_gunicorn_service.py shows the same, sooner
def test_with_queuepool_the_fault_shows(make_stage):
    outcome = serve(
        make_stage("psycopg2", "queue"), tasks=60, workers=3, patience_s=4, stop_s=3
    )
    assert outcome.failed + outcome.wrong + outcome.lost + outcome.hangs > 0
