"""Gunicorn in processes of its own, serving `tests/integrations/served.py`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1] / "integrations"
CONF = "from poolproof.integrations.gunicorn import *\n"
# Versions that do not know it pass it over.
QUIET = "control_socket_disable = True\n"


class Served:
    """A Gunicorn that serves `served.py`.

    Args:
        url: The database.
        table: A table with one column of integers.
        folder: For its configuration and its log.
        options: Of the command line.
        environment: Beyond the application's own.
    """

    def __init__(self, url, table, folder, *options, conf=CONF, **environment):
        with socket.socket() as place:
            place.bind(("127.0.0.1", 0))
            self.port = place.getsockname()[1]
        (folder / "gunicorn.conf.py").write_text(conf + QUIET)
        self.log_path = folder / "log"
        with self.log_path.open("w") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "gunicorn", "served:app"),
                    *("--chdir", str(HERE), "--bind", f"127.0.0.1:{self.port}"),
                    *("--config", str(folder / "gunicorn.conf.py")),
                    *options,
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, "TEST_URL": url, "TEST_TABLE": table, **environment},
            )

    def __enter__(self):
        end = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < end:
            try:
                self.get("/worker")
            except OSError:
                time.sleep(0.05)
            else:
                return self
        self.stop()
        pytest.fail(f"Gunicorn did not start:\n{self.log}")

    def __exit__(self, *_error):
        self.stop()

    def stop(self):
        """Stop it in order; end it when that takes too long."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
            raise

    def get(self, path, timeout=20.0):
        """Return the status and the text of an answer."""
        url = f"http://127.0.0.1:{self.port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=timeout) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    @property
    def log(self):
        """What it has printed."""
        return self.log_path.read_text()


@pytest.fixture
def gunicorn(pg_url, table, tmp_path):
    """Return a function that makes a Gunicorn."""

    def make(*options, driver="psycopg2", **more):
        url = pg_url(driver).render_as_string(hide_password=False)
        return Served(url, table, tmp_path, *options, **more)

    return make


