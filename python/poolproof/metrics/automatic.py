"""Keeping metrics where the environment says so, without a line of code.

Apart from `publisher`, so that who keeps none need not load it.
"""

from __future__ import annotations

import os

__all__: list[str] = []

if os.environ.get("POOLPROOF_METRICS_DIR") or os.environ.get(
    "PROMETHEUS_MULTIPROC_DIR"
):
    pass
