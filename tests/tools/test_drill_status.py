"""`make drill` says what came of it; make itself knows one failure alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


def make_drill(status: int) -> subprocess.CompletedProcess[str]:
    """Run the recipe with something in the place of nox that ends with a status."""
    return subprocess.run(
        ["make", "drill", "BOOTSTRAP=true", f"NOX=sh -c 'exit {status}'"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (1, "status 1, a fault of poolproof"),
        (2, "status 2, nothing was proved"),
    ],
)
def test_a_status_is_said_and_handed_to_make(status, words):
    done = make_drill(status)
    assert words in done.stderr
    assert f"Error {status}" in done.stderr
    assert done.returncode == 2


@pytest.mark.parametrize(("status", "mades"), [(0, 0), (130, 2)])
def test_a_good_end_and_a_signal_need_no_words(status, mades):
    done = make_drill(status)
    assert "make drill:" not in done.stderr
    assert done.returncode == mades
