"""The tools are installed once, whichever Python comes first in the PATH."""

from __future__ import annotations

import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
BOOTSTRAP = CHECKOUT / "tools" / "bootstrap"

# It answers what is asked of a candidate, and can do no more.
ANOTHER = """#!/bin/sh
[ "$1" = -c ] && exit 0
echo "another Python was chosen" >&2
exit 3
"""


def test_a_session_that_calls_it_uses_the_same_tools(tmp_path):
    another = tmp_path / "python3.13"
    another.write_text(ANOTHER)
    another.chmod(0o755)
    again = f"command -v nox; PATH={tmp_path}:$PATH; {BOOTSTRAP} sh -c 'command -v nox'"
    done = subprocess.run(
        [BOOTSTRAP, "sh", "-c", again],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == second
