"""What OpenTelemetry's own SDK collects of the pools."""

from __future__ import annotations

import threading

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import poolproof
from metrics.names import EVERY, SEMANTIC
from plugins.processes import run_in_fork
from poolproof.metrics import otel
from poolproof.metrics.table import BOUNDS, TABLE


@pytest.fixture
def reader():
    made = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[made], shutdown_on_exit=False)
    otel.install(provider)
    yield made
    provider.shutdown()


def collected(reader):
    data = reader.get_metrics_data()
    return {
        metric.name: metric
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def points(found, name, **attributes):
    wanted = {key.replace("__", "."): value for key, value in attributes.items()}
    return [
        point
        for point in found[name].data.data_points
        if wanted.items() <= dict(point.attributes).items()
    ]


def use_everything(pool):
    """Leave no metric of the pool without a value."""
    totals = pool.totals
    for counts in (totals.timeouts, totals.discarded, totals.pings, totals.stranded):
        counts.add("something")
    totals.discarded.add("ping_timeout")
    totals.transactions.add("done")
    totals.retries.add("done")
    totals.faults.add("corruption:connection")
    totals.timings.record_ping(0.001)
    pool.connect().close()


def test_names_are_those_of_the_table_and_the_conventions(reader, make_pool, tmp_path):
    budget = ("named", 40, str(tmp_path))
    pool = make_pool(logging_name="named", host_budget=budget)
    use_everything(pool)
    found = collected(reader)
    table = {metric.otel for metric in TABLE}
    # A lease that is not held has no time left, and a pool of threads no loop; that of
    # another test may have.
    elsewhere = {"poolproof.lease.left", "poolproof.loop.lag"}
    assert set(found) - elsewhere == table - elsewhere
    assert table >= SEMANTIC
    assert len(table) == len(EVERY)
    for name in table - SEMANTIC:
        assert name.startswith("poolproof.")


def test_units_and_attributes_are_those_of_the_conventions(reader, stub_engine):
    engine = stub_engine(pool_logging_name="units", pool_size=2, max_overflow=1)
    with engine.connect():
        found = collected(reader)
    count = found["db.client.connection.count"]
    assert count.unit == "{connection}"
    assert not count.data.is_monotonic
    (used,) = points(
        found,
        "db.client.connection.count",
        db__client__connection__pool__name="units",
        db__client__connection__state="used",
    )
    assert used.value == 1
    attributes = dict(used.attributes)
    assert attributes["db.system.name"] == "postgresql"
    assert attributes["db.namespace"] == "stub"
    assert attributes["server.address"] == "127.0.0.1"
    assert found["db.client.connection.wait_time"].unit == "s"
    most = points(
        found,
        "db.client.connection.max",
        db__client__connection__pool__name="units",
    )
    assert [point.value for point in most] == [3]


def test_histograms_have_count_sum_and_buckets_of_the_pool(reader, make_pool):
    pool = make_pool(pool_size=1, logging_name="timed")
    of = {"db__client__connection__pool__name": "timed"}
    name = "db.client.connection.use_time"

    def hold(seconds):
        with_it = pool.connect()
        threading.Event().wait(seconds)
        with_it.close()

    hold(0.02)
    (first,) = points(collected(reader), name, **of)
    assert first.count == 1
    for seconds in (0.0, 0.002, 0.03):
        hold(seconds)
    (point,) = points(collected(reader), name, **of)
    seen = poolproof.snapshot(pool).hold
    assert point.count == seen.count == 4
    assert point.sum == pytest.approx(seen.sum_s, rel=1e-6)
    assert tuple(point.explicit_bounds) == BOUNDS
    up_to = [sum(point.bucket_counts[: n + 1]) for n in range(len(BOUNDS))]
    assert up_to == [seen.buckets[bound] for bound in BOUNDS]


def test_nothing_is_recorded_twice(reader, make_pool):
    pool = make_pool(logging_name="once")
    pool.connect().close()
    for _ in range(3):
        found = collected(reader)
    (point,) = points(
        found,
        "db.client.connection.wait_time",
        db__client__connection__pool__name="once",
    )
    assert point.count == 1


def test_what_was_before_the_instruments_is_not_recorded_one_by_one(make_pool):
    """A pool may have a million holds behind it, and each recording is a call."""
    pool = make_pool(logging_name="older")
    for _ in range(50):
        pool.connect().close()
    made = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[made], shutdown_on_exit=False)
    otel.install(provider)
    of = {"db__client__connection__pool__name": "older"}
    name = "db.client.connection.use_time"
    before = collected(made)
    assert name not in before or not points(before, name, **of)
    for _ in range(2):
        pool.connect().close()
    (point,) = points(collected(made), name, **of)
    assert point.count == 2
    provider.shutdown()


def test_a_scope_is_an_attribute_of_holds(reader, make_pool):
    pool = make_pool(logging_name="scoped")
    with poolproof.scope("page"):
        pool.connect().close()
    name = "db.client.connection.use_time"
    assert points(
        collected(reader),
        name,
        db__client__connection__pool__name="scoped",
        poolproof__scope="page",
    )


def test_a_childs_provider_begins_with_nothing(make_pool):
    pool = make_pool(logging_name="forked")
    pool.connect().close()

    def child():
        made = InMemoryMetricReader()
        provider = MeterProvider(metric_readers=[made], shutdown_on_exit=False)
        otel.install(provider)
        pool.connect().close()
        (point,) = points(
            collected(made),
            "db.client.connection.wait_time",
            db__client__connection__pool__name="forked",
        )
        return point.count

    assert run_in_fork(child).assert_silent().result == 1
