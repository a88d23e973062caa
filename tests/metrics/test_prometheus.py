"""What Prometheus reads: its own parser over what is served."""

from __future__ import annotations

import threading

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families as parse

import poolproof
from metrics.names import EVERY
from plugins.threads import Task, wait_for_waiters
from poolproof.metrics.exposition import text
from poolproof.metrics.prometheus import Collector, _families
from poolproof.metrics.table import BOUNDS, TABLE, read

SECRET = "s3cret-of-ours"  # noqa: S105 - that is what it is for


def scrape(collector):
    registry = CollectorRegistry()
    registry.register(collector)
    return list(parse(generate_latest(registry).decode()))


def values(families, name, **labels):
    """Return the values of the samples with a name and these labels among theirs."""
    return [
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]


def test_every_promised_name_is_in_the_table_and_no_other():
    found = {metric.full_name: set(metric.every_label) for metric in TABLE}
    assert found == EVERY


def test_a_scrape_has_every_name_and_no_other(make_pool):
    make_pool().connect().close()
    # The parser leaves the end of a counter's name out.
    wanted = {name.removesuffix("_total") for name in EVERY}
    ours = [one for one in scrape(Collector()) if one.name.startswith("poolproof")]
    assert {family.name for family in ours} == wanted
    assert all(family.documentation for family in ours)


def test_labels_are_those_of_the_table(make_pool):
    make_pool().connect().close()
    for family in scrape(Collector()):
        for sample in family.samples:
            metric = next(
                one
                for one in TABLE
                if sample.name.startswith(one.full_name.removesuffix("_total"))
                and (set(sample.labels) - {"le"}) == set(one.every_label)
            )
            assert metric


def test_what_a_pool_does_is_what_is_scraped(make_pool):
    pool = make_pool(pool_size=1, max_overflow=1, logging_name="scraped", timeout=0.05)
    held = [pool.connect(), pool.connect()]
    with pytest.raises(poolproof.PoolTimeout):
        pool.connect()
    found = scrape(Collector())
    of = {"pool": "scraped"}
    assert values(found, "poolproof_connections", state="used", **of) == [2]
    assert values(found, "poolproof_connections", state="idle", **of) == [0]
    assert values(found, "poolproof_connections_max", **of) == [2]
    assert values(found, "poolproof_connections_idle_max", **of) == [1]
    assert values(found, "poolproof_timeouts_total", reason="slot", **of) == [1]
    assert values(found, "poolproof_connects_total", outcome="ok", **of) == [2]
    assert values(found, "poolproof_oldest_hold_seconds", **of)[0] > 0
    for one in held:
        one.close()
    found = scrape(Collector())
    assert values(found, "poolproof_hold_seconds_count", scope="", **of) == [2]
    assert values(found, "poolproof_connections", state="idle", **of) == [1]


def test_buckets_are_cumulative_and_end_with_all(make_pool):
    pool = make_pool(pool_size=1, max_overflow=0, logging_name="buckets")
    held = pool.connect()
    task = Task(lambda: pool.connect().close())
    wait_for_waiters(pool, 1)
    threading.Event().wait(0.02)
    held.close()
    task.result()
    found = scrape(Collector())
    buckets = [
        (sample.labels["le"], sample.value)
        for family in found
        if family.name == "poolproof_wait_seconds"
        for sample in family.samples
        if sample.name.endswith("_bucket") and sample.labels["pool"] == "buckets"
    ]
    assert [le for le, _ in buckets] == [*map(str, BOUNDS), "+Inf"]
    counts = [count for _, count in buckets]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (1, 2)
    at_10_ms = dict(buckets)["0.01"]
    assert at_10_ms == 1  # who waited 20 ms is in none up to here


def test_an_unbounded_pool_has_no_maximum(make_pool):
    make_pool(max_overflow=-1, logging_name="endless")
    found = scrape(Collector())
    assert values(found, "poolproof_connections_max", pool="endless") == []


def test_no_label_has_a_pid_a_user_or_a_dsn(make_engine, pg_url):
    url = pg_url("psycopg2").set(password=SECRET)
    engine = make_engine(url)
    engine.connect().close()
    registry = CollectorRegistry()
    registry.register(Collector())
    text = generate_latest(registry).decode()
    assert engine.pool.name() in text
    assert "s3cret" not in text
    assert "pid" not in text
    assert f"{url.username}:" not in text


def test_what_is_served_is_what_prometheus_own_client_writes(make_pool):
    """The text that `/metrics` answers, beside the client's of the same collector."""
    make_pool(logging_name='quoted "pool" \\ line').connect().close()
    pool = make_pool(pool_size=1, max_overflow=0, logging_name="busy")
    with poolproof.scope("a scope"):
        pool.connect().close()

    class Fixed:
        def collect(self):
            return _families(samples)

    samples = read(poolproof.snapshot())
    registry = CollectorRegistry()
    registry.register(Fixed())
    theirs = list(parse(generate_latest(registry).decode()))
    ours = list(parse(text(samples).decode()))
    assert ours == theirs
    assert len(ours) == len(TABLE)


def test_it_may_be_registered_once_more_elsewhere_and_described():
    registry = CollectorRegistry(auto_describe=True)
    registry.register(Collector())
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(Collector())
