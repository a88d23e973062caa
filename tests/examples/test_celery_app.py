"""The example runs as it is, and shows the fault and its absence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "celery_app"


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(EXAMPLE), *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.soak  # test_celery_service.py shows the same, sooner
def test_with_poolproof_every_order_is_right():
    done = run("--orders=40")
    assert done.returncode == 0, done
    assert "  40 right\n   0 wrong\n   0 failed\n   0 hung\n" in done.stdout
    assert "  40 orders in the table, by " in done.stdout
    assert done.stderr == ""


@pytest.mark.soak  # the drill shows the same, sooner
def test_with_queuepool_the_fault_shows():
    done = run("--pool", "queue")
    assert done.returncode == 1, done
    assert "THE FAULT SHOWED" in done.stdout
