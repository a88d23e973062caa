"""Celery as it is: real workers of every kind on a real PostgreSQL."""

from __future__ import annotations

import re
import subprocess
import sys

import celery as framework
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import scoped_session, sessionmaker

import poolproof
from plugins.server import DRIVERS
from plugins.sessions import all_are_gone
from poolproof.integrations import celery as integration

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("alone"),
]

ORDERS = 40
SECRET = "s3cret!"  # noqa: S105
KINDS = {
    "prefork": ("--pool", "prefork", "--concurrency", "2"),
    "threads": ("--pool", "threads", "--concurrency", "4"),
    "solo": ("--pool", "solo"),
    "gevent": ("--pool", "gevent", "--concurrency", "4"),
}
ONE = ("--pool", "prefork", "--concurrency", "1")
SOLO = KINDS["solo"]


def ordered(worker, observer, table, count=ORDERS):
    """Order; compare the answers, and the rows that are there."""
    answers = worker.results([worker.send("order", n) for n in range(count)])
    assert answers == [str(n) for n in range(count)]
    found = [n for (n,) in observer.rows(f"select n from {table} order by n")]
    assert found == list(range(count))


def ended_in_order(worker, observer, ends=1):
    """Stop the worker; see that nothing of it is left.

    Each of its processes that ends says how many connections rest.
    """
    assert worker.stop() == 0
    assert all_are_gone(observer)
    assert "Traceback" not in worker.log
    assert worker.log.count("RESTING 0") == ends, worker.log


@pytest.mark.parametrize(
    "kind",
    # Processes are at work in test_celery_service.py, and solo is a thread.
    [
        pytest.param(kind, marks=[pytest.mark.soak] * (kind in {"prefork", "solo"}))
        for kind in KINDS
    ],
)
def test_every_kind_of_worker_keeps_its_tasks_apart(celery, observer, table, kind):
    session = "flask" if kind == "solo" else "scoped"
    with celery(*KINDS[kind], TEST_SESSION=session) as worker:
        if kind == "prefork":
            worker.wait_for("RESTING 1")  # a child's first connection
        ordered(worker, observer, table)
        leaks = [worker.call("leak") for _ in range(4)]
        assert all(isinstance(one, int) for one in leaks)
        # Of three connections four would have been out, and four sessions.
        seen = worker.call("look")
        assert seen["out"] == 0
        assert seen["is_new"]
        assert seen["discarded"].keys() == {"left_out"}
        named = r"poolproof-tests w@tests(/\d)? look"
        assert re.fullmatch(named, seen["name"])
        assert (kind == "prefork") == ("/" in seen["name"])
        assert worker.log.count("task leak left a connection of pool") == len(leaks)
        assert observer.value(f"select count(*) from {table} where n < 0") == 0
        assert worker.call("outer") is True
        ended_in_order(worker, observer, ends=3 if kind == "prefork" else 1)


@pytest.mark.soak
@pytest.mark.parametrize("driver", ["psycopg", "pg8000"])
def test_other_drivers_are_kept_in_order_as_well(celery, observer, table, driver):
    with celery(*ONE, driver=driver) as worker:
        ordered(worker, observer, table, count=10)
        backend = worker.call("leak")
        seen = worker.call("look")
        assert seen["backend"] != backend
        assert seen["name"] == "poolproof-tests w@tests/0 look"
        ended_in_order(worker, observer, ends=2)


@pytest.mark.parametrize(
    "driver",
    [
        pytest.param(name, marks=[pytest.mark.soak] * (name != "psycopg2"))
        for name in DRIVERS
    ],
)
def test_a_soft_time_limit_costs_the_connection(celery, observer, table, driver):
    with celery(*ONE, driver=driver) as worker:
        told = worker.call("linger")
        assert told["how"] != "finished"
        assert told["answers"] == ["0", "1", "2"]
        seen = worker.call("look")
        assert seen["backend"] != told["backend"]
        assert sum(seen["discarded"].values()) == 1
        ordered(worker, observer, table, count=5)


@pytest.mark.parametrize("hygiene", ["after_fork", "nothing"])
@pytest.mark.quick("nothing")
def test_without_the_integration_a_fork_does_no_harm(celery, observer, table, hygiene):
    options = KINDS["prefork"]
    with celery(*options, TEST_HYGIENE=hygiene) as worker:
        ordered(worker, observer, table)
        # Two rest in the parent, unharmed, and each child has its own.
        assert len(observer.backends()) <= 2 + 2
        assert worker.stop() == 0
    assert observer.wait_for_backends(0) == []
    assert "ConnectionForked" not in worker.log


@pytest.mark.parametrize(
    "kind", ["prefork", pytest.param("threads", marks=pytest.mark.soak)]
)
def test_a_database_that_lets_nobody_in_is_told_of_at_the_start(celery, pg_url, kind):
    url = pg_url("psycopg2").set(database="nowhere", password=SECRET)
    worker = celery(*KINDS[kind], url=url, TEST_COLD="1")
    try:
        assert worker.process.wait(30) == 1
    finally:
        worker.__exit__()
    last = worker.log.strip().splitlines()
    words = "poolproof: the worker does not start: no connection to postgresql"
    assert any(line.startswith(words) for line in last), worker.log
    assert 'database "nowhere" does not exist' in worker.log
    assert SECRET not in worker.log


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["maker", "engine", "none"])
def test_what_tasks_leave_behind_is_cleared_away(celery, kind):
    with celery(*SOLO, TEST_SESSION=kind) as worker:
        backend = worker.call("leak_session" if kind in {"maker", "engine"} else "leak")
        seen = worker.call("look")
        # Whatever a session has is taken back also where nobody named it.
        assert seen["out"] == 0
        assert (seen["backend"] == backend) == (kind == "maker")
        words = "a session open" if kind == "maker" else "a connection of pool"
        assert f"left {words}" in worker.log


def test_what_nobody_named_is_found_where_it_is_on_our_pool(celery):
    with celery(*SOLO, TEST_SESSION="none") as worker:
        worker.call("leak")
        seen = worker.call("look")
        assert seen["out"] == 0
        assert seen["is_new"]
        assert "nothing is watched" not in worker.log
        assert worker.stop() == 0


def test_where_nothing_is_found_a_warning_says_that_nothing_is_watched(celery):
    with celery(*SOLO, TEST_SESSION="none", TEST_POOL="queue") as worker:
        assert worker.log.count("nothing is watched between tasks") == 1
        assert worker.stop() == 0


# --- in this process, which is no worker ----------------------------------------------


@pytest.fixture
def app():
    """An application that is forgotten when the test ends."""
    app = framework.Celery("eager", set_as_current=False)
    yield app
    app.close()


def test_an_eager_task_leaves_the_callers_session_alone(app, pg_url):
    engine = create_engine(pg_url("psycopg2"), poolclass=poolproof.Pool)
    session = scoped_session(sessionmaker(engine))
    integration.install(app, session=session)

    @app.task
    def ask():
        return session.scalar(text("select pg_backend_pid()"))

    backend = session.scalar(text("select pg_backend_pid()"))
    mine = session()
    assert ask.apply().get() == backend
    assert session() is mine
    assert mine.in_transaction()
    session.remove()
    engine.dispose()


def test_a_naming_that_does_not_exist_is_refused(app):
    with pytest.raises(ValueError, match="'job'"):
        integration.install(app, naming="job")


def test_what_is_no_application_is_refused():
    with pytest.raises(TypeError, match="the Celery application, not int"):
        integration.install(5)


def test_what_is_no_session_is_refused(app):
    with pytest.raises(TypeError, match="not str"):
        integration.install(app, session="db")


def test_without_the_framework_the_error_names_the_extra():
    script = (
        "import sys; sys.modules['celery'] = None\nimport poolproof.integrations.celery"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert 'pip install "celery>=5.3"' in done.stderr


def test_the_package_imports_no_framework():
    script = (
        "import sys, poolproof, poolproof.integrations.jobs\n"
        "names = {'celery', 'billiard', 'kombu', 'flask', 'gunicorn', 'luigi'}\n"
        "print(sorted(names & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stdout == "[]\n"


def test_a_task_is_never_inside_one_that_was_cut_off(app):
    """A soft time limit may pass within the signal that begins a task."""

    @app.task
    def shop():
        """Do nothing; its signals are sent by hand."""

    integration.install(app)
    jobs = []
    for _ in range(2):  # the first one's end is never heard of
        shop.push_request(is_eager=False)
        framework.signals.task_prerun.send(shop, task_id="1", task=shop)
        jobs.append(shop.request._poolproof_job)
    assert [job.outer for job in jobs] == [None, None]
    framework.signals.task_postrun.send(shop, task_id="1", task=shop)
    for _ in jobs:
        shop.pop_request()


@pytest.mark.quick("prefork")
@pytest.mark.parametrize("kind", ["prefork", "threads"])
def test_tasks_of_asyncio_have_a_loop_each_or_one_that_lasts(
    celery, observer, table, kind
):
    with celery(*KINDS[kind], TEST_ASYNC="1") as worker:
        of_parent = observer.value(f"select count(*) from {table} where n = -1")
        assert of_parent == 1
        for lasts, first in ((False, 0), (True, 100)):
            numbers = list(range(first, first + 12))
            sent = [worker.send("async_order", n, lasts) for n in numbers]
            told = worker.results(sent)
            assert [answer for answer, _backend, _pid in told] == list(
                map(str, numbers)
            )
            backends = {backend for _answer, backend, _pid in told}
            if kind == "prefork" and lasts:
                # Each process keeps its own.
                assert len(backends) == len({pid for _answer, _backend, pid in told})
        rows = observer.value(f"select count(*) from {table}")
        assert rows == 1 + 24
        assert worker.stop() == 0
    assert observer.wait_for_backends(0) == []
    assert "Traceback" not in worker.log
