"""OpenTelemetry over a fork: what was installed before is of the child's provider."""

from __future__ import annotations

import json

from plugins.processes import run_script

SCRIPT = """
import json, os, sys
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import poolproof
from plugins.dbapi import SocketDBAPI
from poolproof.metrics import otel

otel.install()
otel.trace(wait_s=None, connect_s=0)
pool = poolproof.Pool(SocketDBAPI().connect, logging_name="forked")
for _ in range(3):
    pool.connect().close()

def work(times):
    reader, spans = InMemoryMetricReader(), InMemorySpanExporter()
    metrics.set_meter_provider(MeterProvider([reader], shutdown_on_exit=False))
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(tracers)
    for _ in range(times):
        pool.connect().close()
    body = json.loads(reader.get_metrics_data().to_json())
    found = {
        one["name"]: one["data"]["data_points"]
        for one in body["resource_metrics"][0]["scope_metrics"][0]["metrics"]
    }
    print(json.dumps([
        found["db.client.connection.wait_time"][0]["count"],
        [one.name for one in spans.get_finished_spans()],
    ]), flush=True)

child = os.fork()
if child == 0:
    work(2)
    os._exit(0)
os.waitpid(child, 0)
"""


def test_what_was_installed_before_a_fork_is_of_the_childs_provider():
    done = run_script(SCRIPT, warnings="default")
    assert done.returncode == 0, done.stderr
    count, spans = json.loads(done.stdout)
    assert count == 2  # and not the parent's three, too
    assert spans == ["poolproof.connect"]
