"""Own a temporary PostgreSQL, and end it when the owner of our stdin goes away.

This file is run by itself (``python -I keeper.py``) in a session of its own: a
Ctrl-C at the terminal does not reach it, and a drill that is killed outright still
closes the pipe. Whatever ends the drill, the postmaster is stopped and its
directory removed. Standard library only, so that it starts at once.

The protocol: one JSON object on stdin (``{"home": directory of the programs}``);
one on stdout (``{"port": …, "password": …, "directory": …}``, or
``{"error": sentence}``); then end of file on stdin means stop.
"""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

USER = "drill"
STARTS = 3  # tries, each with a new port: another process may take the first one
READY_S = 60.0
STOP_S = 5.0
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "32MB",
    # The data lives as long as the drill: what a crash would lose is of no use.
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "logging_collector": "off",
    "log_destination": "stderr",
}


class StartError(Exception):
    """PostgreSQL could not be started; the message is for people."""


def account() -> pwd.struct_passwd | None:
    """Return whom the server runs as when we are root, which it refuses to be."""
    if os.geteuid() != 0:
        return None
    for name in ("nobody", "postgres"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise StartError(
        "running as root, and there is no user nobody to run PostgreSQL as"
    )


def workplace(user: pwd.struct_passwd | None) -> Path:
    """Return where to put the server's directory: where *user* may go, too."""
    chosen = Path(tempfile.gettempdir()).resolve()
    for base in (chosen, Path("/tmp"), Path("/var/tmp")):  # noqa: S108 (mkdtemp follows)
        if user is None or all(
            path.stat().st_mode & 0o001 for path in (base, *base.parents)
        ):
            return base
    raise StartError(f"the user {user.pw_name if user else ''} may not enter {chosen}")


def run_as(user: pwd.struct_passwd | None) -> dict[str, object]:
    """Return the arguments of `subprocess` that make a program run as *user*."""
    if user is None:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def borrow(home: Path, directory: Path, user: pwd.struct_passwd | None) -> Path:
    """Return PostgreSQL's programs where *user* may read them.

    A virtual environment of root's commonly lies under a directory that nobody
    else may enter. Its permissions are not ours to widen, so the programs are
    copied (about 40 MB) for the length of the drill.
    """
    if user is None:
        return home
    package = directory / home.parent.name
    copy = package / home.name
    for part in ("bin", "lib", "share"):
        if (home / part).exists():
            shutil.copytree(home / part, copy / part)
    libraries = home.parent.with_name(f"{home.parent.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, directory / libraries.name)
    for path in (*package.rglob("*"), *directory.glob("*.libs/*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
    for path in (copy / "bin").iterdir():
        path.chmod(0o755)
    return copy


def initialise(
    home: Path, data: Path, password: str, user: pwd.struct_passwd | None
) -> None:
    """Make an empty database cluster that asks everyone for a password."""
    secret = data.with_name("password")
    secret.touch(0o600)
    secret.write_text(password)
    if user is not None:
        os.chown(secret, user.pw_uid, user.pw_gid)
    made = subprocess.run(  # noqa: S603 (our own arguments)
        [
            str(home / "bin" / "initdb"),
            f"--pgdata={data}",
            f"--username={USER}",
            f"--pwfile={secret}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--no-instructions",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=data.parent,
        **run_as(user),  # type: ignore[call-overload]
    )
    secret.unlink()
    if made.returncode != 0:
        raise StartError(f"initdb failed: {made.stderr.strip() or made.stdout.strip()}")


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def start(
    home: Path, data: Path, user: pwd.struct_passwd | None
) -> tuple[subprocess.Popen[bytes], int]:
    """Start the postmaster as our own child.

    Returns:
        The process and the TCP port where it answers.

    Raises:
        StartError: It did not come up; the message holds the end of its log.
    """
    log = data.with_name("log")
    for _ in range(STARTS):
        port = free_port()
        settings = {
            **SETTINGS,
            "port": str(port),
            "unix_socket_directories": str(data.parent),
        }
        with log.open("wb") as out:
            server = subprocess.Popen(  # noqa: S603 (our own arguments)
                [
                    str(home / "bin" / "postgres"),
                    "-D",
                    str(data),
                    *(f"--{name}={value}" for name, value in settings.items()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=data.parent,
                **run_as(user),  # type: ignore[call-overload]
            )
        deadline = time.monotonic() + READY_S
        while server.poll() is None and time.monotonic() < deadline:
            if is_ready(data):
                return server, port
            time.sleep(0.02)
        stop(server)
    tail = log.read_text(errors="replace").strip().splitlines()[-5:]
    raise StartError("PostgreSQL did not start: " + " | ".join(tail))


def is_ready(data: Path) -> bool:
    """Tell whether the postmaster says, in its own file, that it takes connections."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[7].strip() == "ready"  # noqa: PLR2004 (its 8th line)


def stop(server: subprocess.Popen[bytes]) -> None:
    """Stop the postmaster: fast, then at once, then by force."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        if server.poll() is not None:
            return
        server.send_signal(number)
        try:
            server.wait(STOP_S)
        except subprocess.TimeoutExpired:
            continue


def answer(**facts: object) -> None:
    """Tell the drill one thing; a drill that is gone already is no error."""
    try:
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()
    except OSError:
        pass


def main() -> int:
    """Start, say so, wait for the end of stdin, stop, remove."""
    for number in ENDINGS:
        signal.signal(number, lambda *_: sys.exit(0))
    order = json.loads(sys.stdin.readline() or "{}")
    if "home" not in order:
        return 1
    directory = server = None
    try:
        user = account()
        made = tempfile.mkdtemp(prefix="poolproof-drill-", dir=workplace(user))
        directory = Path(made)
        if user is not None:
            os.chown(directory, user.pw_uid, user.pw_gid)
        password = secrets.token_urlsafe(18)
        home = borrow(Path(order["home"]), directory, user)
        initialise(home, directory / "data", password, user)
        server, port = start(home, directory / "data", user)
        answer(port=port, password=password, user=USER, directory=str(directory))
        sys.stdin.read()
    except (StartError, OSError) as error:
        answer(error=str(error))
        return 1
    finally:
        for number in ENDINGS:
            signal.signal(number, signal.SIG_IGN)
        if server is not None:
            stop(server)
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
