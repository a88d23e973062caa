"""A process to be watched, that holds two connections in two scopes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import pytest
import sqlalchemy as sa

from plugins.threads import eventually
from poolproof.watch import sources

APPLICATION = """
import sys, threading, time
import poolproof, sqlalchemy as sa

engine = sa.create_engine(
    sys.argv[1],
    poolclass=poolproof.Pool,
    pool_size=3,
    connect_args={"application_name": sys.argv[2]},
)
ready = threading.Semaphore(0)

def hold(name, statement):
    with poolproof.scope(name), engine.connect() as connection:
        connection.execute(sa.text("select 1"))
        ready.release()
        connection.execute(sa.text(statement))
        time.sleep(600)

for each in (("checkout", "select 1"), ("report", "select pg_sleep(600)")):
    threading.Thread(target=hold, args=each, daemon=True, name=each[0]).start()
    ready.acquire()
print("ready", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def running(place, url):
    """Run a process that holds two connections, in two scopes.

    Args:
        place: An empty folder.
        url: The database.
    """
    name = f"watched {place.name}"[:63]
    script = place / "application.py"
    script.write_text(APPLICATION)
    directory = place / "metrics"
    directory.mkdir()
    process = subprocess.Popen(
        [sys.executable, script, url, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "POOLPROOF_METRICS_DIR": str(directory)},
    )
    assert process.stdout.readline() == b"ready\n"
    # What it says is written once a second.
    eventually(lambda: len(sources.processes(directory)[1]) == 2)
    yield process, directory
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()
    with sa.create_engine(url, poolclass=sa.pool.NullPool).connect() as connection:
        connection.execute(
            sa.text(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = :name"
            ),
            {"name": name},
        )


@pytest.fixture(scope="module")
def url(pg):
    return pg.url("psycopg2").render_as_string(hide_password=False)


@pytest.fixture(scope="module")
def started(url, tmp_path_factory):
    """Run one process for all tests that leave it as it is."""
    with running(tmp_path_factory.mktemp("watched"), url) as found:
        yield found


@pytest.fixture
def application(started):
    return started[0]


@pytest.fixture
def directory(started):
    return started[1]


@pytest.fixture
def start_one(tmp_path, url):
    """Return what runs a process of a test's own."""
    return lambda: running(tmp_path, url)
