"""3xx: what an application does with its engine; each provoked, and silent.

Long, because it is one idea: the checks of one hundred.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import sys

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool, StaticPool

import poolproof
from plugins.processes import run_script
from plugins.threads import Task, eventually
from poolproof.doctor import runtime
from poolproof.doctor.catalogue import CHECKS
from poolproof.doctor.deployment import Deployment
from poolproof.doctor.pool_capacity import capacity_of
from poolproof.doctor.run import examine
from poolproof.doctor.subject import Subject

SOURCE_OF_HOOKS = """
import os
from celery.signals import worker_process_init

@worker_process_init.connect
def renew(**_):
    engine.dispose()

def post_fork(server, worker):
    engine.dispose(close=False)

os.register_at_fork(after_in_child=lambda: engine.dispose())
os.register_at_fork(after_in_child=engine.dispose)

def close_at_the_end():
    engine.dispose()
"""
SOURCE_OF_JOBS = """
@app.get("/orders")
def orders():
    engine = create_engine(URL)
    return engine

@celery.task(bind=True)
def report(self):
    asyncio.run(work())

@shared_task
def another():
    asyncio.run(work())

def once():
    return create_engine(URL)
"""


@pytest.fixture
def see(tmp_path):
    """Return a function that runs one check without a server."""

    def run(engine, code, source="", today=None, **deployment):
        path = tmp_path / "service.py"
        path.write_text(source)
        subject = Subject(
            engine=getattr(engine, "sync_engine", engine),
            shown="application",
            is_application=True,
            deployment=Deployment(**deployment),
            sources=(path,),
        )
        if today is not None:
            subject.today = today
        subject.patience = 20
        chosen = [check for check in CHECKS if check.code == code]
        (finding,) = examine(subject, chosen).findings
        return finding

    return run


@pytest.fixture
def queue(make_engine, pg_url):
    return make_engine(pg_url("psycopg2", application_name="doctor-queue"))


@pytest.fixture
def ours(make_engine, pg_url):
    url = pg_url("psycopg2", application_name="doctor-ours")
    return make_engine(url, poolclass=poolproof.Pool)


def test_pool_classes_that_do_not_fit_are_seen(see, make_engine, pg_url, queue, ours):
    assert see(queue, "PP301", preload=True).severity == "warning"
    assert see(queue, "PP301", worker_class="prefork").severity == "warning"
    assert see(queue, "PP301").severity == "note"
    static = make_engine(pg_url("psycopg2"), poolclass=StaticPool)
    assert see(static, "PP301", threads=4).severity == "error"
    null = make_engine(pg_url("psycopg2"), poolclass=NullPool)
    assert see(null, "PP301").severity == "note"
    assert see(ours, "PP301", preload=True).state == "fine"


def test_an_engine_that_connected_at_import_is_seen(see, queue, ours):
    assert see(queue, "PP302", preload=True).state == "fine"
    with queue.connect() as connection:
        connection.execute(text("select 1"))
        held = see(queue, "PP302", preload=True)
    assert held.severity == "error"
    assert "0 at rest, 1 held" in held.summary
    rests = see(queue, "PP302")
    assert rests.severity == "warning"
    assert "1 at rest, 0 held" in rests.summary
    ours.connect().close()
    assert see(ours, "PP302", preload=True).severity == "note"


def test_disposing_in_a_fork_hook_is_an_error_with_its_line(see, queue, ours):
    finding = see(queue, "PP303", SOURCE_OF_HOOKS)
    assert finding.severity == "error"
    assert finding.file.endswith("service.py")
    lines = [int(line.split(":")[1]) for line in finding.evidence]
    assert sorted(lines) == [7, 12, 13]
    assert see(ours, "PP303", SOURCE_OF_HOOKS).severity == "note"
    spared = SOURCE_OF_HOOKS.replace("engine.dispose()", "engine.dispose(close=False)")
    spared = spared.replace("=engine.dispose)", "=None)")
    assert see(queue, "PP303", spared).state == "fine"


def test_a_handler_that_does_nothing_is_seen(see, queue):
    def useless(context):
        if "PGRES_TUPLES_OK" in str(context.original_exception):
            context.invalidate_pool_on_disconnect = True

    def useful(context):
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = True

    event.listen(queue, "handle_error", useful)
    assert see(queue, "PP304").state == "fine"
    event.listen(queue, "handle_error", useless)
    finding = see(queue, "PP304")
    assert finding.severity == "warning"
    assert "useless" in finding.summary
    assert "useful" not in finding.summary
    assert finding.file == __file__


GREENLETS = """
from sqlalchemy import create_engine
from sqlalchemy.orm import scoped_session, sessionmaker
from poolproof.doctor.greenlets import greenlets
from poolproof.doctor.deployment import Deployment
from poolproof.doctor.pool_capacity import capacity_of
from poolproof.doctor.subject import Subject
engine = create_engine("postgresql+psycopg2://u@127.0.0.1:1/d")

def see(kind, preload=False):
    one = greenlets(Subject(
        engine=engine, shown="", is_application=True,
        deployment=Deployment(worker_class=kind, preload=preload),
    ))
    print(one.severity if one.state == "found" else one.state, one.summary)

see("gthread")
see("gevent", preload=True)
kept = scoped_session(sessionmaker())
from gevent import monkey
monkey.patch_all()
see("gthread")
see("gevent")
kept = scoped_session(sessionmaker())
see("gevent")
import psycopg2.extensions
psycopg2.extensions.set_wait_callback(lambda connection: None)
see("gevent")
"""


def test_greenlets_are_seen_where_and_when_they_replace_locks():
    done = run_script(GREENLETS, warnings="default")
    said = done.stdout.splitlines()
    expected = [
        "fine neither gevent",
        "warning preload_app has loaded",
        "warning locks and sockets are replaced",
        "error 1 scoped_session is older",
        "warning psycopg2 stops every greenlet",
        "fine locks were replaced in time",
    ]
    assert len(said) == len(expected), done
    for line, begin in zip(said, expected, strict=True):
        assert line.startswith(begin), done


def test_threads_beyond_the_slots_and_slots_beyond_the_threads(
    see, make_engine, pg_url
):
    engine = make_engine(pg_url("psycopg2"), pool_size=4, max_overflow=2)
    more = see(engine, "PP306", threads=10)
    assert more.severity == "warning"
    assert "10 threads share 6 connections: 4 of them wait" in more.summary
    fewer = see(engine, "PP306", threads=2)
    assert fewer.severity == "note"
    assert fewer.advice.startswith("pool_size=2, max_overflow=0:")
    # What is opened in passing counts among what may be opened, too.
    assert see(engine, "PP306", threads=5).advice.startswith("max_overflow=1:")
    assert see(engine, "PP306", threads=4).advice.startswith("max_overflow=0:")
    assert see(engine, "PP306", threads=6).state == "fine"
    assert see(engine, "PP306").state == "skipped"


def test_a_request_that_ends_before_the_pool_speaks_is_seen(
    see, queue, make_engine, pg_url
):
    finding = see(queue, "PP307", timeout_s=30)
    assert finding.severity == "warning"
    assert "pool_timeout is 30 s" in finding.summary
    assert see(queue, "PP307", timeout_s=60).state == "fine"
    assert see(queue, "PP307").state == "skipped"
    ours = make_engine(
        pg_url("psycopg2"), poolclass=poolproof.Pool, pool_timeout=3, hold_timeout=90
    )
    assert "hold_timeout" in see(ours, "PP307", timeout_s=60).summary
    assert see(ours, "PP307", timeout_s=120).state == "fine"


def test_an_engine_for_each_request_is_seen_in_the_source(see, make_engine, pg_url):
    engine = make_engine(pg_url("psycopg2", application_name="doctor-alone"))
    finding = see(engine, "PP308", SOURCE_OF_JOBS)
    assert finding.severity == "error"
    assert (finding.line, len(finding.evidence)) == (4, 1)
    assert "create_engine(...) in orders" in finding.summary
    assert see(engine, "PP308").state == "fine"


def test_several_engines_of_a_process_are_counted(see, make_engine, pg_url):
    url = pg_url("psycopg2", application_name="doctor-many")
    first = make_engine(url)
    variant = first.execution_options(isolation_level="AUTOCOMMIT")
    assert see(first, "PP308").state == "fine"
    again = make_engine(url)
    assert "2 engines of this process" in see(first, "PP308").summary
    assert variant.pool is first.pool
    assert again.pool is not first.pool


def test_an_async_engine_over_several_loops_is_seen(see, pg, queue):
    url = pg.url("psycopg2").set(drivername="postgresql+asyncpg", query={})
    engine = create_async_engine(url)

    async def ask():
        async with engine.connect() as connection:
            await connection.execute(text("select 1"))

    async def dispose():
        await engine.dispose()

    assert see(engine, "PP309").state == "fine"
    by_source = see(engine, "PP309", SOURCE_OF_JOBS)
    assert (by_source.severity, by_source.confidence) == ("warning", "likely")
    assert len(by_source.evidence) == 2
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(ask())
        left = see(engine, "PP309")
        loop.run_until_complete(dispose())
    finally:
        loop.close()
    assert left.severity == "error"
    kept = create_async_engine(url, poolclass=NullPool)
    assert see(kept, "PP309", SOURCE_OF_JOBS).state == "fine"
    assert see(queue, "PP309", SOURCE_OF_JOBS).state == "fine"


def test_telemetry_that_is_set_up_before_the_fork_is_seen():
    script = """
import sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from sqlalchemy import create_engine
from poolproof.doctor.deployment import Deployment
from poolproof.doctor.pool_capacity import capacity_of
from poolproof.doctor.runtime import telemetry
from poolproof.doctor.subject import Subject
engine = create_engine("postgresql+psycopg2://u@127.0.0.1:1/d")
def see(**deployment):
    one = telemetry(Subject(
        engine=engine, shown="", is_application=True,
        deployment=Deployment(**deployment),
    ))
    print(one.severity if one.state == "found" else one.state, one.summary)
see(preload=True)
trace.set_tracer_provider(TracerProvider())
see(preload=True)
see()
"""
    done = run_script(script, warnings="default")
    before, after, single = done.stdout.splitlines()
    assert before == "fine no provider of OpenTelemetry is set up at import", done
    assert after.startswith("warning OpenTelemetry is set up for spans before the fork")
    assert single.startswith("fine")


def test_metrics_of_one_worker_of_many_are_seen(see, queue, monkeypatch):
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    # Another test may have served a page of the package's own in this process.
    monkeypatch.setattr(runtime, "is_wanted", lambda: False)
    import prometheus_client

    assert prometheus_client.__name__ in sys.modules
    finding = see(queue, "PP311", workers=4)
    assert finding.severity == "warning"
    assert "one of 4 workers" in finding.summary
    assert see(queue, "PP311").state == "fine"
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/nowhere")
    assert see(queue, "PP311", workers=4).state == "fine"
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR")
    monkeypatch.delitem(sys.modules, "prometheus_client")
    assert see(queue, "PP311", workers=4).state == "fine"


def test_a_page_of_one_worker_of_many_is_seen():
    """In a process of its own: who serves metrics once does so until its end."""
    script = """
import os, sys
from sqlalchemy import create_engine
from poolproof.doctor.deployment import Deployment
from poolproof.doctor.runtime import prometheus
from poolproof.doctor.subject import Subject
from poolproof.metrics.wsgi import with_metrics
engine = create_engine("postgresql+psycopg2://h/d")
def see(**deployment):
    one = prometheus(Subject(
        engine=engine, shown="", is_application=True,
        deployment=Deployment(**deployment),
    ))
    print(one.severity if one.state == "found" else one.state, one.advice)
see(workers=4)
with_metrics(print)
see(workers=4)
see(workers=1)
os.environ["POOLPROOF_METRICS_DIR"] = "/nowhere"
see(workers=4)
import prometheus_client
see(workers=4)
os.environ["PROMETHEUS_MULTIPROC_DIR"] = "/nowhere"
see(workers=4)
"""
    done = run_script(script, warnings="default")
    lines = done.stdout.splitlines()
    words = [line.split()[0] for line in lines]
    assert words == ["fine", "warning", "fine", "fine", "note", "fine"], done
    assert "set POOLPROOF_METRICS_DIR" in lines[1]
    assert "poolproof.integrations.gunicorn" in lines[1]


def test_leases_that_cannot_log_in_are_seen(see, pg_url, ours):
    import psycopg2

    url = pg_url("psycopg2")

    def connect():
        return psycopg2.connect(host=url.host, port=url.port, user="postgres")

    engine = create_engine("postgresql+psycopg2://", creator=connect)
    lease = poolproof.Lease(engine, "of the doctor")
    finding = see(engine, "PP312")
    assert finding.severity == "warning"
    assert any("control_dsn" in line for line in finding.evidence)
    del lease
    assert see(ours, "PP312").state == "fine"


def test_a_control_dsn_that_does_not_rotate_is_seen(see, make_engine, pg_url):
    engine = make_engine(
        pg_url("psycopg2"),
        poolclass=poolproof.Pool,
        control_dsn="postgresql://postgres@127.0.0.1/postgres",
    )
    assert see(engine, "PP312").state == "fine"
    event.listen(engine, "do_connect", lambda *_: None)
    finding = see(engine, "PP312")
    assert finding.severity == "warning"
    assert "do_connect" in finding.summary


def test_versions_past_their_last_day_are_seen(see, queue):
    assert see(queue, "PP313", today=dt.date(2024, 1, 1)).state == "fine"
    finding = see(queue, "PP313", today=dt.date(2050, 1, 1))
    assert finding.severity == "warning"
    assert "is not mended any more" in finding.summary


def test_a_budget_of_the_host_that_some_get_nothing_of_is_seen(
    see, make_engine, pg_url, tmp_path
):
    def engine(most, **parameters):
        return make_engine(
            pg_url("psycopg2", application_name="doctor-ours"),
            poolclass=poolproof.Pool,
            host_budget=(f"of-{most}", most, str(tmp_path)),
            **parameters,
        )

    kept = engine(8, min_idle=2)
    finding = see(kept, "PP314", workers=4)
    assert finding.severity == "error"
    assert "4 workers keep 8 connections ready" in finding.summary
    fits = engine(10, min_idle=2)
    with fits.connect():
        finding = see(fits, "PP314", workers=4)
    assert finding.state == "fine"
    assert any("holds" in line for line in finding.evidence)
    assert see(engine(3), "PP314", workers=4).severity == "error"


def test_a_budget_bounds_what_all_processes_of_a_machine_may_open(
    make_engine, pg_url, tmp_path
):
    engine = make_engine(
        pg_url("psycopg2"),
        poolclass=poolproof.Pool,
        pool_size=90,
        host_budget=("app", 12, str(tmp_path)),
    )
    deployment = Deployment(workers=8, fleet=3)
    subject = Subject(
        engine=engine, shown="application", is_application=True, deployment=deployment
    )
    capacity = capacity_of(subject)
    assert capacity.is_bound_by_host(deployment)
    assert capacity.together(deployment) == 36


def test_callers_who_wait_for_the_budget_are_seen(see, make_engine, pg_url, tmp_path):
    engine = make_engine(
        pg_url("psycopg2", application_name="doctor-ours"),
        poolclass=poolproof.Pool,
        host_budget=("busy", 1, str(tmp_path)),
    )
    with engine.connect():
        waiting = Task(lambda: engine.connect().close())
        eventually(lambda: engine.pool.budget.parts().waiting)
        finding = see(engine, "PP314")
    waiting.result()
    assert finding.severity == "warning"
    assert "1 caller waits for one of the 1 connections" in finding.summary


def test_an_engine_without_a_budget_is_fine(see, ours):
    assert see(ours, "PP314").state == "fine"
