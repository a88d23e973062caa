"""Gunicorn in processes of its own, serving `tests/integrations/served.py`."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

HERE = Path(__file__).parents[1] / "integrations"
# Not `-m gunicorn`: a new master by SIGUSR2 would have its folder as path of modules.
SCRIPT = str(Path(sys.executable).with_name("gunicorn"))
START_S = 200.0
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

    def __init__(
        self,
        url: str,
        table: str,
        folder: Path,
        *options: str,
        conf: str = CONF,
        **environment: str,
    ) -> None:
        (folder / "gunicorn.conf.py").write_text(conf + QUIET)
        self.log_path = folder / "log"
        with self.log_path.open("w") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, SCRIPT, "served:app"),
                    # It says which port it has got. One that is chosen here another
                    # may take meanwhile.
                    *("--chdir", str(HERE), "--bind", "127.0.0.1:0"),
                    *("--config", str(folder / "gunicorn.conf.py")),
                    *options,
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, "TEST_URL": url, "TEST_TABLE": table, **environment},
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        end = time.monotonic() + START_S
        while self.process.poll() is None and time.monotonic() < end:
            try:
                self.get("/worker")
            except (OSError, LookupError):
                time.sleep(0.05)
            else:
                return self
        self._end()
        pytest.fail(f"Gunicorn did not start:\n{self.log}")

    def __exit__(self, *_error: object) -> None:
        try:
            self.stop()
        finally:
            self._end()

    def stop(self, seconds: float = 100.0) -> None:
        """Stop it in order.

        Args:
            seconds: After so long the test fails.
        """
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(seconds)

    def _end(self) -> None:
        """End what is left of its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def get(self, path: str, timeout: float = 100.0) -> tuple[int, str]:
        """Return the status and the text of an answer."""
        url = f"http://127.0.0.1:{self.port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=timeout) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    @functools.cached_property
    def port(self) -> int:
        """Where it listens.

        Raises:
            LookupError: It does not yet.
        """
        told = re.search(r"Listening at: http://127\.0\.0\.1:(\d+) ", self.log)
        if told is None:
            raise LookupError(self.log)
        return int(told[1])

    @property
    def log(self) -> str:
        """What it has printed."""
        return self.log_path.read_text()


@pytest.fixture
def gunicorn(pg_url: Any, table: str, tmp_path: Path) -> Callable[..., Served]:
    """Return a function that makes a Gunicorn."""

    def make(*options: str, driver: str = "psycopg2", **more: Any) -> Served:
        url = pg_url(driver).render_as_string(hide_password=False)
        return Served(url, table, tmp_path, *options, **more)

    return make
