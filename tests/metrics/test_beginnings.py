"""Counters exist before what they count: Prometheus sees the first event, too."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client.parser import text_string_to_metric_families as parse
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

import poolproof
from metrics.test_prometheus import scrape, values
from plugins.threads import eventually
from poolproof import _native
from poolproof.control import stranded
from poolproof.errors import DeadlineExceeded
from poolproof.metrics import files, otel, words
from poolproof.metrics.exposition import text as exposed
from poolproof.metrics.prometheus import Collector
from poolproof.metrics.table import TABLE, complete, read
from poolproof.pool import evidence

COUNTED = [metric for metric in TABLE if metric.known]

# Connects in vain, and is stopped by whoever reads.
AWAY = """
import sys
import poolproof, sqlalchemy as sa
engine = sa.create_engine(sys.argv[1], poolclass=poolproof.Pool)
try:
    engine.connect()
except sa.exc.OperationalError:
    print("away", flush=True)
sys.stdin.read()
"""


def test_a_counter_that_has_labels_says_which_it_will_have():
    counters = {one.name for one in TABLE if one.kind == "counter" and one.labels}
    # Whether a caller waited is told from the first look on, without such a list.
    assert counters - {one.name for one in COUNTED} == {"checkouts_total"}


@pytest.mark.parametrize("metric", COUNTED, ids=lambda one: one.name)
def test_a_new_pool_has_every_counter_at_nothing(make_pool, metric):
    name = f"new {metric.name}"
    make_pool(logging_name=name)
    found = scrape(Collector())
    behind = "_count" if metric.kind == "histogram" else ""
    for labels in metric.known:
        of = dict(zip(metric.labels, labels, strict=True))
        assert values(found, metric.full_name + behind, pool=name, **of) == [0], of


def test_the_first_of_a_kind_is_a_step_from_nothing(make_engine, pg_url):
    engine = make_engine(pg_url("psycopg2"), pool_logging_name="stepping")
    asked = ("poolproof_faults_total",)
    of = {"pool": "stepping", "fault": "cancelled", "cost": "nothing"}
    before = values(scrape(Collector()), *asked, **of)
    with engine.connect() as connection:
        connection.execute(text("set local statement_timeout = 1"))
        with pytest.raises(DBAPIError):
            connection.execute(text("select pg_sleep(60)"))
    after = values(scrape(Collector()), *asked, **of)
    assert (before, after) == ([0], [1])


def test_a_pool_of_another_class_begins_when_it_is_guarded(make_engine, pg_url):
    engine = make_engine(
        pg_url("psycopg2"), poolclass=NullPool, pool_logging_name="guarded"
    )
    poolproof.guard(engine)
    found = scrape(Collector())
    of = {"pool": "guarded"}
    assert len(values(found, "poolproof_faults_total", **of)) == len(words.FAULTS)
    assert values(found, "poolproof_transactions_total", outcome="done", **of) == [0]
    assert values(found, "poolproof_connects_total", **of) == []


def test_many_processes_have_them_too_and_their_files_do_not(make_pool, tmp_path):
    pool = make_pool(logging_name="in a file")
    pool.connect().close()
    samples = read(poolproof.snapshot())
    place = tmp_path / files._ENDED
    place.write_bytes(files.encode(samples, folded=[]))
    kept = place.read_bytes()
    assert b'["in a file","ok"]' in kept
    assert b'["in a file","slot"]' not in kept
    found = list(parse(exposed(files.read_all(tmp_path)).decode()))
    of = {"pool": "in a file"}
    assert values(found, "poolproof_timeouts_total", reason="breaker", **of) == [0]
    assert values(found, "poolproof_connects_total", outcome="ok", **of) == [1]


def test_opentelemetry_has_them_too(make_pool):
    make_pool(logging_name="observed")
    reader = InMemoryMetricReader()
    otel.install(MeterProvider([reader]))
    body = json.loads(reader.get_metrics_data().to_json())
    metrics = body["resource_metrics"][0]["scope_metrics"][0]["metrics"]
    (faults,) = [one for one in metrics if one["name"] == "poolproof.faults"]
    ours = [
        point["value"]
        for point in faults["data"]["data_points"]
        # What happened outside of a named pool has none.
        if point["attributes"].get("db.client.connection.pool.name") == "observed"
    ]
    assert ours == [0] * len(words.FAULTS)


def test_completing_changes_no_number_and_stays_within_bounds(make_pool):
    make_pool(logging_name="bounded").connect().close()
    before = read(poolproof.snapshot())
    after = complete(read(poolproof.snapshot()))
    for name, values_before in before.items():
        if not name.endswith("seconds"):
            assert {key: after[name][key] for key in values_before} == values_before
    of_pool = sum(key[:1] == ("bounded",) for found in after.values() for key in found)
    assert of_pool < 150


def test_the_words_are_those_of_where_they_come_from():
    """Each list beside the one that it repeats, for whoever adds to either."""

    def alone(found):
        return {word for (word,) in found}

    assert alone(words.STRANDED) == set(stranded._LINES)
    discarded = alone(words.DISCARDED)
    assert set(evidence._CAUSES) <= discarded
    assert {f"{step}_timeout" for step in alone(words.STEPS)} <= discarded
    for step in alone(words.STEPS):
        assert "raise the timeout" not in str(DeadlineExceeded(step, 1.0))
    prices = _native.fault_prices()
    assert {fault for fault, _ in words.FAULTS} == {price.fault for price in prices} - {
        "none"
    }


def test_a_process_that_cannot_connect_is_seen(tmp_path):
    """The first connection would be late: what is wrong is that there is none."""
    url = "postgresql+psycopg2://app@127.0.0.1:1/app"  # where nobody listens
    process = subprocess.Popen(
        [sys.executable, "-c", AWAY, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "POOLPROOF_METRICS_DIR": str(tmp_path)},
    )
    try:
        assert process.stdout.readline() == b"away\n"

        def seen():
            found = list(parse(exposed(files.read_all(tmp_path)).decode()))
            assert values(found, "poolproof_connects_total", outcome="failed") == [1]
            return values(found, "poolproof_connect_failures") == [1]

        eventually(seen)
    finally:
        process.communicate()


def test_engines_alone_say_nothing_of_pools_that_are_not_there():
    assert create_engine("postgresql+psycopg2://app@db/app") is not None
    assert complete({}) == {metric.name: {} for metric in COUNTED}
