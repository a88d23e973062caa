"""Run the drill's command to its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any


def play(url: str, *args: str, **env: str) -> tuple[int, dict[str, Any], str]:
    """Run a drill on a database.

    Args:
        url: The database, password and all.
        args: Options of the command.
        env: Environment variables to change.

    Returns:
        Its exit status, its report, and what it said beside it.
    """
    done = subprocess.run(
        [sys.executable, "-m", "poolproof", "drill", "--json=-", *args],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "POOLPROOF_DRILL_URL": url, **env},
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr
