"""What a benchmark ran on."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
from pathlib import Path

__all__ = ["machine"]


def machine() -> dict[str, object]:
    """Describe the machine and the versions in use."""
    return {
        "date": dt.datetime.now(dt.timezone.utc).date().isoformat(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "priority": _priority(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlalchemy": importlib.metadata.version("sqlalchemy"),
        "poolproof": importlib.metadata.version("poolproof"),
    }


def _priority() -> str:
    """Return the process's niceness, or that it runs before all ordinary ones."""
    if hasattr(os, "sched_getscheduler") and os.sched_getscheduler(0) in {
        os.SCHED_FIFO,
        os.SCHED_RR,
    }:
        return "real-time"
    return f"nice {os.getpriority(os.PRIO_PROCESS, 0)}"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if "model name" in line)
    return next(names, platform.machine())
