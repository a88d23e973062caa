"""Install Debian packages where that is allowed, without ever asking anything."""

from __future__ import annotations

import os
import shutil
import subprocess


def may_install() -> bool:
    """Say whether this process may install packages: Debian, and root or free sudo."""
    return shutil.which("apt-get") is not None and _as_root() is not None


def install(packages: list[str]) -> None:
    """Install *packages* and what they need, nothing recommended.

    Args:
        packages: Names of Debian packages, one at least.

    Raises:
        subprocess.CalledProcessError: apt-get failed, or this process may not.
    """
    _run(["apt-get", "update", "-q"])
    _run(["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages])


def write_root_file(path: str, text: str, *, mode: str = "644") -> None:
    """Write *text* to a file that only root may write, with its directory."""
    _run(["mkdir", "-p", os.path.dirname(path)])  # noqa: PTH120 - a string to a command
    _run(["tee", path], text)
    _run(["chmod", mode, path])


def remove_root_file(path: str) -> None:
    """Remove a file that only root may remove."""
    _run(["rm", "-f", path])


def _as_root() -> list[str] | None:
    """Return what to put before a command to run it as root, None if we may not."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") is None:
        return None
    asked = subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False)
    return ["sudo", "-n"] if asked.returncode == 0 else None


def _run(command: list[str], text: str | None = None) -> None:
    environment = ["env", "DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_MODE=a"]
    subprocess.run(
        [*(_as_root() or []), *environment, *command],
        check=True,
        input=text,
        stdin=subprocess.DEVNULL if text is None else None,
        stdout=subprocess.DEVNULL if text is not None else None,
        text=True,
    )
