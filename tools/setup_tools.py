"""Make the tools' virtual environment ready and run a command in it.

The environment stands in the cache directory and is named after what is in it,
so every checkout that wants the same tools shares it. Runs on any Python 3.10
or newer, with the standard library alone.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import caches
import debian

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def main(command: list[str]) -> None:
    """Run *command* with the tools on its PATH; does not return."""
    if not command:
        sys.exit("usage: tools/bootstrap COMMAND [ARGUMENT …]")
    trust_the_system()
    tools = ready_tools()
    cargo = Path.home() / ".cargo" / "bin"
    path = [str(tools / "bin"), os.environ.get("PATH", os.defpath)]
    if cargo.is_dir() and shutil.which("cargo") is None:
        path.append(str(cargo))
    os.environ["PATH"] = os.pathsep.join(path)
    if shutil.which("cargo") is None:
        sys.exit("bootstrap: no cargo was found; install Rust (https://rustup.rs)")
    os.execvp(command[0], command)  # noqa: S606 - the caller's own command


def trust_the_system() -> None:
    """Have pip and uv use the system's certificates, and the system's Pythons."""
    os.environ["UV_SYSTEM_CERTS"] = "1"
    os.environ["UV_PYTHON_DOWNLOADS"] = "never"
    # Its deprecated name makes a newer uv warn at every call.
    os.environ.pop("UV_NATIVE_TLS", None)
    if CERTIFICATES.exists():
        os.environ.setdefault("PIP_CERT", str(CERTIFICATES))


def ready_tools() -> Path:
    """Return the tools' virtual environment, made if it is not there."""
    wanted = REQUIREMENTS.read_text() + sys.version + sys.base_prefix
    name = hashlib.sha256(wanted.encode()).hexdigest()[:12]
    tools = caches.cache_directory() / f"tools-{name}"
    complete = tools / "complete"
    if complete.exists():
        return tools
    with caches.locked(tools):
        if not complete.exists():
            print(
                f"bootstrap: installing nox, uv and maturin in {tools}, once",
                file=sys.stderr,
            )
            make_environment(tools)
            complete.touch()
    return tools


def make_environment(tools: Path) -> None:
    """Make the virtual environment *tools* anew."""
    shutil.rmtree(tools, ignore_errors=True)
    if not venv_is_there():
        package = f"python3.{sys.version_info.minor}-venv"
        if not debian.may_install():
            sys.exit(
                f"bootstrap: {sys.executable} has no venv module; "
                f"install it (apt-get install {package})"
            )
        debian.install([package])
    subprocess.run([sys.executable, "-m", "venv", tools], check=True)
    pip = [str(tools / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "-q", "-r", str(REQUIREMENTS)], check=True)


def venv_is_there() -> bool:
    """Say whether a new process of this Python could make an environment with pip."""
    asked = [sys.executable, "-c", "import ensurepip, venv"]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    main(sys.argv[1:])
