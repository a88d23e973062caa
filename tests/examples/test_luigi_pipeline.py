"""The example runs as it is, and shows the fault and its absence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "luigi_pipeline"
pytestmark = pytest.mark.slow


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(EXAMPLE), *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.soak  # test_luigi_service.py shows the same, sooner
def test_with_poolproof_every_token_is_counted():
    done = run("--tasks=12")
    assert done.returncode == 0, done
    assert "    12 of 12 plans made\n" in done.stdout
    assert " tokens counted, of 8430 spent\n" in done.stdout
    assert "     0 answers to somebody else's question\n" in done.stdout
    assert "poolproof: every token counted" in done.stdout
    assert done.stderr == ""


@pytest.mark.soak  # the drill shows the same, sooner
def test_with_queuepool_the_fault_shows():
    done = run("--pool", "queue")
    assert done.returncode == 1, done
    assert "queue: THE FAULT SHOWED" in done.stdout
