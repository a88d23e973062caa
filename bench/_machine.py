"""What a benchmark ran on."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path

__all__ = ["machine"]


def machine() -> dict[str, object]:
    """Describe the machine and the versions in use."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlalchemy": importlib.metadata.version("sqlalchemy"),
        "poolproof": importlib.metadata.version("poolproof"),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if "model name" in line)
    return next(names, platform.machine())
