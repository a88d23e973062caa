"""What Prometheus reads of services as they are: one scrape, several processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families as parse
from sqlalchemy import create_engine, text
from werkzeug.test import Client

import poolproof
from metrics.test_prometheus import scrape, values
from plugins.threads import eventually
from poolproof.integrations import flask as integration
from poolproof.integrations.jobs import Jobs
from poolproof.metrics import files
from poolproof.metrics.prometheus import MultiProcess
from poolproof.metrics.wsgi import with_metrics


def scraped(served):
    status, body = served.get("/metrics")
    assert status == 200
    return list(parse(body))


def checkouts(found):
    return sum(values(found, "poolproof_checkouts_total"))


def holds(found):
    return sum(values(found, "poolproof_hold_seconds_count", scope="order"))


def connected(found):
    return sum(values(found, "poolproof_connects_total", outcome="ok"))


@pytest.mark.slow
def test_a_gunicorn_with_three_workers_one_killed(gunicorn, tmp_path, observer, table):
    place = tmp_path / "metrics"
    options = ("--workers", "3", "--preload")
    with gunicorn(*options, POOLPROOF_METRICS_DIR=str(place)) as served:
        number = iter(range(10_000))
        orders = 0
        workers = set()

        def order():
            nonlocal orders
            assert served.get(f"/order/{next(number)}")[0] == 200
            orders += 1
            workers.add(served.get("/worker")[1])
            return len(list(place.glob("*.metrics"))) == 3

        eventually(order)
        # Each counts once a second.
        eventually(lambda: holds(scraped(served)) >= 2 * orders)
        found = scraped(served)
        assert holds(found) == checkouts(found) == 2 * orders
        assert connected(found) >= 3
        before = sum(values(found, "poolproof_connections", state="idle"))
        assert before >= 3
        # Who is killed leaves its counts, and no connection.
        victim = int(min(workers))
        os.kill(victim, signal.SIGKILL)

        def has_gone():
            now = scraped(served)
            assert checkouts(now) == 2 * orders
            return sum(values(now, "poolproof_connections", state="idle")) < before

        eventually(has_gone)
        names = {family.name for family in scraped(served)}
        assert "poolproof_connections" in names
    # The master has ended, too; what was counted is there for who comes next.
    assert checkouts(scrape(MultiProcess(place))) == 2 * orders


@pytest.mark.slow
@pytest.mark.parametrize("preload", [True, False], ids=["preloaded", "late"])
def test_a_page_under_gunicorn_is_of_all_workers_without_a_directory(
    gunicorn, observer, table, preload
):
    """Its hooks choose a directory, which goes with the master."""
    options = ("--workers", "3", *(["--preload"] if preload else []))
    environment = {"TEST_METRICS": "1", "POOLPROOF_METRICS_DIR": ""}
    with gunicorn(*options, **environment) as served:
        number = iter(range(10_000))

        def order():
            assert served.get(f"/order/{next(number)}")[0] == 200
            found = scraped(served)
            return values(found, "poolproof_processes", role="worker") == [3]

        eventually(order)
        orders = next(number)
        eventually(lambda: checkouts(scraped(served)) == 2 * orders)
        status, body = served.get("/metrics")
        assert status == 200
        assert "alone" not in body
        (place,) = Path("/dev/shm").glob(f"poolproof-{served.process.pid}-*")
        assert place.stat().st_mode & 0o777 == 0o700
        assert "PP311" not in served.log
    assert not place.exists()


@pytest.mark.slow
def test_a_master_adds_what_it_has_open_and_not_what_it_might_open(
    gunicorn, observer, table, tmp_path
):
    environment = {
        "TEST_CONNECTS": "1",
        "POOLPROOF_METRICS_DIR": str(tmp_path / "metrics"),
    }
    with gunicorn("--workers", "2", "--preload", **environment) as served:
        number = iter(range(10_000))

        def order():
            assert served.get(f"/order/{next(number)}")[0] == 200
            found = scraped(served)
            return values(found, "poolproof_processes", role="worker") == [2]

        eventually(order)
        # Three for each worker, and the one that the master has opened.
        eventually(
            lambda: values(scraped(served), "poolproof_connections_max") == [2 * 3 + 1]
        )
        found = scraped(served)
        assert values(found, "poolproof_processes", role="main") == [1]


@pytest.mark.slow
def test_a_celery_with_four_processes(celery, tmp_path, table, observer):
    place = tmp_path / "metrics"
    options = ("--pool", "prefork", "--concurrency", "4")
    with celery(
        *options, TEST_SESSION="scoped", POOLPROOF_METRICS_DIR=str(place)
    ) as worker:
        count = 40
        worker.results([worker.send("order", n) for n in range(count)])

        def tasks():
            found = scrape(MultiProcess(place))
            return {
                sample.labels["scope"]: sample.value
                for family in found
                if family.name == "poolproof_hold_seconds"
                for sample in family.samples
                if sample.name.endswith("_count") and sample.labels["scope"]
            }

        eventually(lambda: sum(tasks().values()) >= count)
        (name,) = tasks()
        assert name.endswith("order")
        # The four that work; the parent's, that has looked whether it is let in.
        assert len(list(place.glob("*.metrics"))) in (4, 5)
        found = scrape(MultiProcess(place))
        roles = {
            role: sum(values(found, "poolproof_processes", role=role))
            for role in ("worker", "main")
        }
        assert roles["worker"] == 4
        # The parent has looked in vain for work of its own: it keeps no place.
        (most,) = values(found, "poolproof_connections_max")
        (one,) = {
            value
            for body in files.live(place)
            if not body["is_main"]
            for value in body["samples"]["connections_max"].values()
        }
        assert 4 * one <= most <= 4 * one + 1


def test_a_request_is_in_the_scope_of_its_endpoint(pg_url):
    app = Flask("scoped")
    engine = create_engine(pg_url("psycopg2"), poolclass=poolproof.Pool)
    integration.init_app(app, engine)
    integration.add_metrics(app)
    seen = []

    @app.get("/page/<number>")
    def endpoint_of_its_own(number):
        with engine.connect() as connection:
            connection.execute(text("select 1"))
            (holder,) = poolproof.snapshot(engine).holders
            seen.append(holder.scope)
        return number

    client = app.test_client()
    for number in range(2):
        assert client.get(f"/page/{number}").status_code == 200
    assert seen == ["endpoint_of_its_own"] * 2
    with engine.connect():
        (holder,) = poolproof.snapshot(engine).holders
    assert holder.scope is None  # the scope ended with the request
    answer = client.get("/metrics")
    assert answer.status_code == 200
    found = list(parse(answer.text))
    # What is counted is the process's, with what other tests have held.
    scope = "endpoint_of_its_own"
    assert values(found, "poolproof_hold_seconds_count", scope=scope) == [2]
    engine.dispose()


def test_a_job_is_in_the_scope_of_its_kind(pg_url):
    engine = create_engine(pg_url("psycopg2"), poolclass=poolproof.Pool)
    jobs = Jobs("task")
    with jobs.job("report 17", scope="report"), engine.connect():
        (holder,) = poolproof.snapshot(engine).holders
        assert holder.scope == "report"
        with jobs.job("inner"), engine.connect():
            scopes = {one.scope for one in poolproof.snapshot(engine).holders}
            assert scopes == {"report", "inner"}
    with engine.connect():
        (holder,) = poolproof.snapshot(engine).holders
    assert holder.scope is None
    engine.dispose()


def test_any_wsgi_application_has_them_in_one_line():
    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"the application"]

    client = Client(with_metrics(application))
    assert client.get("/other").text == "the application"
    page = client.get("/metrics").text
    names = {family.name for family in parse(page)}
    assert "poolproof_connections" in names
    # Whoever reads it sees that it may be one of several.
    assert page.startswith("# poolproof: of the process that answers, alone.")
