"""Celery workers for the tests: real processes, and a broker for them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from celery.states import READY_STATES

from poolproof.drill.services.broker import Broker
from poolproof.drill.services.celery import client

APPLICATIONS = Path(__file__).parents[1] / "integrations"


class Worker:
    """A worker with the application `worked.py`, its processes its own group.

    Args:
        settings: Celery's configuration.
        log: Where it writes.
        options: Of ``celery worker``.
        environment: What the application is told.
    """

    def __init__(self, settings, log, *options, **environment):
        # Its own queue: what another test has left is not its business.
        settings = settings | {"task_default_queue": uuid.uuid4().hex}
        self._clients = contextlib.ExitStack()
        self._client = self._clients.enter_context(client(settings))
        self._log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "celery", "--app", "worked", "worker"),
                    *("--loglevel", "INFO", "--hostname", "w@tests"),
                    *("--without-gossip", "--without-mingle", "--without-heartbeat"),
                    *options,
                ],
                cwd=APPLICATIONS,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={
                    **os.environ,
                    **environment,
                    "TEST_CELERY": json.dumps(settings),
                    "PYTHONUNBUFFERED": "1",
                    "C_FORCE_ROOT": "1",
                },
            )

    def __enter__(self):
        self.wait_for(" ready.")
        return self

    def __exit__(self, *_error):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(60)
        self._clients.close()

    @property
    def log(self):
        """What it has printed."""
        return self._log.read_text()

    def wait_for(self, words, seconds=200.0):
        """Wait until the log has these words."""
        end = time.monotonic() + seconds
        while words not in self.log:
            if self.process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"no {words!r} in the worker's log:\n{self.log}")
            time.sleep(0.02)

    def send(self, name, *arguments):
        """Send a task; return its id. Nothing is subscribed to."""
        task_id = str(uuid.uuid4())
        message = self._client.amqp.create_task_message(task_id, name, arguments, {})
        with self._client.producer_or_acquire() as producer:
            self._client.amqp.send_task_message(producer, name, message)
        return task_id

    def results(self, task_ids, seconds=200.0):
        """Wait for tasks; return what came of each, an exception perhaps."""
        found = []
        end = time.monotonic() + seconds
        while len(found) < len(task_ids):
            # Of one at a time: to ask for each of forty is work for two processors.
            told = self._client.backend.get_task_meta(task_ids[len(found)])
            if told["status"] in READY_STATES:
                found.append(told["result"])
                continue
            if time.monotonic() > end:
                missing = len(task_ids) - len(found)
                pytest.fail(f"{missing} tasks did not end:\n{self.log}")
            time.sleep(0.01)
        return found

    def call(self, name, *arguments):
        """Have one task done; return its result."""
        return self.results([self.send(name, *arguments)])[0]

    def stop(self, seconds=100.0):
        """Have it end in order; return its status."""
        self.process.terminate()
        return self.process.wait(seconds)


@pytest.fixture(scope="session")
def broker():
    """Run a broker: Redis where it is installed, files elsewhere."""
    with Broker() as running:
        yield running


@pytest.fixture
def celery(pg_url, table, broker, tmp_path):
    """Return a function that makes a worker."""

    def make(*options, driver="psycopg2", url=None, **environment):
        return Worker(
            broker.settings,
            tmp_path / "log",
            *options,
            TEST_URL=(url or pg_url(driver)).render_as_string(hide_password=False),
            TEST_TABLE=table,
            **environment,
        )

    return make
