"""Gunicorn as it is, in processes of its own, with the hooks and a real PostgreSQL."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time

import pytest


@pytest.mark.slow
def test_a_sync_worker_that_is_stuck_in_the_database_survives(
    gunicorn, observer, table
):
    options = ("--workers", "1", "--timeout", "4")
    with gunicorn(*options) as served:
        worker = served.get("/worker")
        began = time.monotonic()
        status, _text = served.get("/stuck")
        took = time.monotonic() - began
        assert status == 500
        assert 2.0 < took < 4.0
        end = time.monotonic() + 2
        while sleeping(observer) and time.monotonic() < end:
            time.sleep(0.02)
        assert sleeping(observer) == 0
        # The locks of the row are free, and nothing of it stays.
        lock = f"lock table {table} in access exclusive mode nowait"
        observer.rows(f"do $$ begin {lock}; end $$")
        time.sleep(2)  # the time-out passes
        assert served.get("/worker") == worker
    assert "DeadlineExceeded" in served.log
    assert "WORKER TIMEOUT" not in served.log
    assert "shortly before Gunicorn's timeout of 4 s" in served.log
    assert observer.value(f"select count(*) from {table}") == 0


def sleeping(observer):
    """Count the sessions in pg_sleep."""
    return observer.value(
        "select count(*) from pg_stat_activity where query like 'select pg_sleep%%'"
        " and state = 'active'"
    )


@pytest.mark.slow
def test_an_abort_reports_who_holds_which_connection(gunicorn, observer):
    with gunicorn("--workers", "1", "--timeout", "2") as served:
        with contextlib.suppress(OSError):  # some versions hang up, some answer 500
            assert served.get("/asleep", timeout=10)[0] == 500
        end = time.monotonic() + 10
        while "holds backend" not in served.log and time.monotonic() < end:
            time.sleep(0.05)
    assert "WORKER TIMEOUT" in served.log
    line = re.search(
        r"poolproof: worker \d+: MainThread holds backend \d+ of pool '[^']+' "
        r"for (\d+\.\d+) s; no statement is under way",
        served.log,
    )
    assert line is not None, served.log
    assert float(line[1]) > 1.5


@pytest.mark.slow
@pytest.mark.parametrize("preload", [True, False], ids=["preload", "no preload"])
@pytest.mark.quick("preload")
def test_more_connections_than_the_server_lets_in_are_warned_of_once(
    gunicorn, observer, preload
):
    slots = observer.value(
        "select current_setting('max_connections')::int"
        " - current_setting('superuser_reserved_connections')::int"
        " - current_setting('reserved_connections')::int"
    )
    # Not so many that they are a burden: what each may open is what is raised.
    each = slots // 2
    settings = {"POOLPROOF_POOL_SIZE": str(each), "POOLPROOF_MAX_OVERFLOW": "0"}
    options = ("--workers", "3", *["--preload"] * preload)
    with gunicorn(*options, TEST_WARM="1", **settings) as served:
        served.get("/order/1")
    warning = f"3 workers × {each} (pool_size + max_overflow) = {3 * each} connections"
    assert served.log.count(warning) == 1
    assert f"but the server has {slots} slots" in served.log
    (line,) = [one for one in served.log.splitlines() if warning in one]
    assert "[WARNING]" in line


@pytest.mark.slow
def test_what_fits_is_said_and_not_warned_of(gunicorn):
    """The threads of a worker share them: times the threads they would not fit."""
    settings = {"POOLPROOF_POOL_SIZE": "10", "POOLPROOF_MAX_OVERFLOW": "5"}
    options = ("--worker-class", "gthread", "--threads", "4", "--workers", "2")
    with gunicorn(*options, "--preload", TEST_WARM="1", **settings) as served:
        served.get("/order/1")
    lines = [line for line in served.log.splitlines() if "slots" in line]
    (line,) = lines
    assert "[INFO]" in line
    assert "2 workers × 15 (pool_size + max_overflow) = 30 connections fit into" in line
    assert "thread" not in line


@pytest.mark.slow
def test_threads_that_have_to_wait_are_warned_of_with_the_checks_code(gunicorn):
    settings = {"POOLPROOF_POOL_SIZE": "2", "POOLPROOF_MAX_OVERFLOW": "1"}
    options = ("--worker-class", "gthread", "--threads", "8", "--workers", "1")
    with gunicorn(*options, "--preload", TEST_WARM="1", **settings) as served:
        served.get("/order/1")
    (line,) = [one for one in served.log.splitlines() if "PP306" in one]
    assert "[WARNING] poolproof: PP306: 8 threads share 3 connections" in line


@pytest.mark.slow
def test_hooks_can_be_composed(gunicorn):
    conf = (
        "from poolproof.integrations import gunicorn as pool_hooks\n"
        "def post_fork(server, worker):\n"
        "    pool_hooks.post_fork(server, worker)\n"
        "    server.log.info('mine as well')\n"
        "post_worker_init = pool_hooks.post_worker_init\n"
    )
    with gunicorn("--workers", "1", conf=conf) as served:
        assert served.get("/order/7") == (200, "7")
    assert "mine as well" in served.log


def test_without_the_framework_the_error_names_the_extra():
    script = (
        "import sys; sys.modules['gunicorn'] = None\n"
        "import poolproof.integrations.gunicorn"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert 'pip install "gunicorn>=21"' in done.stderr
