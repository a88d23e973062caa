"""Spans of what takes long: none unless asked for, children of the caller's."""

from __future__ import annotations

import threading

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import poolproof
from plugins.dbapi import OperationalError
from plugins.threads import Task, wait_for_waiters
from poolproof.metrics import otel


@pytest.fixture
def spans():
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    exporter.provider = provider
    ends = []
    exporter.trace = lambda **words: ends.append(otel.trace(provider=provider, **words))
    yield exporter
    for end in ends:
        end()
    provider.shutdown()


def make_wait(pool, seconds):
    """Have a caller wait for a slot for so long."""
    first = pool.connect()
    task = Task(lambda: pool.connect().close())
    wait_for_waiters(pool, 1)
    threading.Event().wait(seconds)
    first.close()
    task.result()


def test_there_is_none_unless_asked_for(spans, make_pool):
    make_wait(make_pool(pool_size=1, max_overflow=0), 0.01)
    assert spans.get_finished_spans() == ()


def test_a_wait_above_the_threshold_has_one(spans, make_pool):
    spans.trace(wait_s=0.05, connect_s=None)
    pool = make_pool(pool_size=1, max_overflow=0, logging_name="traced")
    make_wait(pool, 0.1)
    (span,) = spans.get_finished_spans()
    assert span.name == "poolproof.wait"
    assert span.attributes["db.client.connection.pool.name"] == "traced"
    took = (span.end_time - span.start_time) / 1e9
    assert took == pytest.approx(poolproof.snapshot(pool).wait.max_s, rel=0.5)
    assert took >= 0.1


def test_one_below_has_none(spans, make_pool):
    spans.trace(wait_s=1000, connect_s=1000)
    make_wait(make_pool(pool_size=1, max_overflow=0), 0.01)
    assert spans.get_finished_spans() == ()


def test_connecting_is_a_child_of_the_callers_span(spans, make_pool):
    spans.trace(wait_s=None, connect_s=0)
    pool = make_pool()
    tracer = spans.provider.get_tracer("application")
    with tracer.start_as_current_span("request") as request:
        pool.connect().close()
    connecting, parent = spans.get_finished_spans()
    assert connecting.name == "poolproof.connect"
    assert connecting.parent.span_id == request.get_span_context().span_id
    assert connecting.start_time >= parent.start_time


def test_one_that_fails_says_how_and_not_with_which_words(spans, make_pool, dbapi):
    spans.trace(wait_s=None, connect_s=0)
    dbapi.script["connect"] = OperationalError("password s3cret")
    with pytest.raises(OperationalError):
        make_pool().connect()
    (span,) = spans.get_finished_spans()
    assert span.attributes["error.type"] == "OperationalError"
    assert "s3cret" not in span.to_json()


@pytest.mark.parametrize("wrong", [-1, float("nan")])
def test_a_threshold_that_is_none_is_refused(spans, wrong):
    with pytest.raises(ValueError, match="0 or more"):
        spans.trace(wait_s=wrong)
