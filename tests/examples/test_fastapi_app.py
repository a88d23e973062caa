"""The example runs as it is, and shows the fault and its absence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "fastapi_app"


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(EXAMPLE), *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.soak  # tests/drill and test_starlette_requests.py show the same
def test_with_poolproof_every_order_that_was_waited_for_is_right():
    done = run("--orders=60", "--patience=100")
    assert done.returncode == 0, done
    assert "  54 right\n   0 wrong\n   0 failed\n   0 hung\n" in done.stdout
    assert "   6 hung up\n   0 confirmed, but not in the table\n" in done.stdout
    assert done.stderr == ""


@pytest.mark.soak  # the drill shows the same, sooner
def test_with_sqlalchemys_pool_the_fault_shows():
    done = run("--pool", "queue", "--orders=60")
    assert done.returncode == 1, done
    assert "THE FAULT SHOWED" in done.stdout
