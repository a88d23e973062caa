"""The example runs as it is, and shows the fault and its absence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "prefork.py"


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(EXAMPLE), *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_with_poolproof_every_answer_is_right():
    done = run("--patience=100")  # the machine may have much else to do
    assert done.returncode == 0, done
    assert done.stdout.count("50 right, 0 wrong, 0 failed") == 4
    assert done.stderr == ""


@pytest.mark.soak  # the drill shows the same, sooner
def test_with_queuepool_the_fault_shows():
    done = run("--pool", "queue")
    assert done.returncode == 1, done
    assert "THE FAULT SHOWED" in done.stdout
