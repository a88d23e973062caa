"""Own a temporary server, and end it when the owner of our stdin goes away.

This file is run by itself (``python -I supervisor.py``) in a session of its own: a
Ctrl-C at the terminal does not reach it, and a drill that is killed outright still
closes the pipe. Whatever ends the drill, the server is stopped and its directory
removed. Standard library only, so that it starts at once.

The protocol: JSON objects, one a line. The first on stdin is the order, and each
gets one on stdout, which is ``{"error": sentence}`` when it failed:

- ``{"home": directory of the programs, "settings": {name: value}}``: a PostgreSQL;
  ``{"port": …, "user": …, "password": …, "directory": …}``
- ``{"pooler": path of pgbouncer, "files": {name: text}}``: a PgBouncer whose
  ``pgbouncer.ini`` is one of the files, with ``{port}`` and ``{directory}`` in it;
  ``{"port": …, "directory": …}``
- ``{"stop": "fast" or "immediate"}``, then ``{"start": true}``: the server goes down
  as told, and comes up again on its old port; ``{"port": …}``

End of file on stdin means stop.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

USER = "drill"
STARTS = 3  # tries, each with a new port: another process may take the first one
READY_S = 60.0
STOP_S = 5.0
MODES = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
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


class SupervisorError(Exception):
    """The server could not be started; the message is for people."""


@dataclass
class Kept:
    """The server that is kept: how it is started, and what runs of it now."""

    name: str
    directory: Path
    command: list[str]
    is_ready: Callable[[int], bool]
    user: pwd.struct_passwd | None
    files: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    port: int = 0


def account() -> pwd.struct_passwd | None:
    """Return whom the server runs as when we are root, which it refuses to be."""
    if os.geteuid() != 0:
        return None
    for name in ("nobody", "postgres"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise SupervisorError(
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
    raise SupervisorError(
        f"the user {user.pw_name if user else ''} may not enter {chosen}"
    )


def run_as(user: pwd.struct_passwd | None) -> dict[str, object]:
    """Return the arguments of `subprocess` that make a program run as *user*."""
    if user is None:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def is_open(home: Path) -> bool:
    """Tell whether everybody may go to *home* and read all that is there."""
    libraries = home.parent.with_name(f"{home.parent.name}.libs")
    return all(path.stat().st_mode & 0o001 for path in home.resolve().parents) and all(
        path.stat().st_mode & 0o004
        for folder in (home, libraries)
        for path in (folder, *folder.rglob("*"))
        if path.exists()
    )


def borrow(home: Path, directory: Path, user: pwd.struct_passwd | None) -> Path:
    """Return PostgreSQL's programs where *user* may read them.

    A virtual environment of root's commonly lies under a directory that nobody
    else may enter. Its permissions are not ours to widen, so the programs are
    copied (about 40 MB) for the length of the drill. What the system has is open.
    """
    if user is None or not home.name.startswith("pginstall") or is_open(home):
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
    write(secret, password, user)
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
        raise SupervisorError(
            f"initdb failed: {made.stderr.strip() or made.stdout.strip()}"
        )


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def start(kept: Kept) -> None:
    """Start the server as our own child, on its old port if it had one.

    Raises:
        SupervisorError: It did not come up; the message holds the end of its log.
    """
    log = kept.directory / "log"
    for _ in range(STARTS):
        port = kept.port or free_port()
        words = {"{port}": str(port), "{directory}": str(kept.directory)}
        for name, text in kept.files.items():
            write(kept.directory / name, fill(text, words), kept.user)
        with log.open("ab") as out:
            server = kept.process = subprocess.Popen(  # noqa: S603 (our own arguments)
                [fill(word, words) for word in kept.command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=kept.directory,
                **run_as(kept.user),  # type: ignore[call-overload]
            )
        deadline = time.monotonic() + READY_S
        while server.poll() is None and time.monotonic() < deadline:
            if kept.is_ready(port):
                kept.port = port
                return
            time.sleep(0.01)
        stop(server)
    tail = log.read_text(errors="replace").strip().splitlines()[-5:]
    raise SupervisorError(f"{kept.name} did not start: " + " | ".join(tail))


def fill(text: str, words: dict[str, str]) -> str:
    """Put what is known only now into a text."""
    for name, word in words.items():
        text = text.replace(name, word)
    return text


def write(path: Path, text: str, user: pwd.struct_passwd | None) -> None:
    """Write a file that only the server's user may read."""
    path.touch(0o600)
    path.write_text(text)
    if user is not None:
        os.chown(path, user.pw_uid, user.pw_gid)


def is_ready(data: Path) -> bool:
    """Tell whether the postmaster says, in its own file, that it takes connections."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[7].strip() == "ready"  # noqa: PLR2004 (its 8th line)


def listens(port: int) -> bool:
    """Tell whether somebody takes connections on a loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


def stop(
    server: subprocess.Popen[bytes], first: signal.Signals = signal.SIGINT
) -> None:
    """Stop the server: as *first* says, then at once, then by force."""
    for number in dict.fromkeys((first, signal.SIGQUIT, signal.SIGKILL)):
        if server.poll() is not None:
            return
        server.send_signal(number)
        try:
            server.wait(STOP_S)
        except subprocess.TimeoutExpired:
            continue


def postgresql(
    home: Path, own: dict[str, str], directory: Path, user: pwd.struct_passwd | None
) -> Kept:
    """Prepare a PostgreSQL with the programs in *home* and settings of its *own*."""
    data = directory / "data"
    settings = {
        **SETTINGS,
        **own,
        "port": "{port}",
        "unix_socket_directories": str(directory),
    }
    return Kept(
        name="PostgreSQL",
        directory=directory,
        command=[
            str(borrow(home, directory, user) / "bin" / "postgres"),
            *("-D", str(data)),
            *(f"--{name}={value}" for name, value in settings.items()),
        ],
        is_ready=lambda _port: is_ready(data),
        user=user,
    )


def pgbouncer(
    program: str, files: dict[str, str], directory: Path, user: pwd.struct_passwd | None
) -> Kept:
    """Prepare a PgBouncer with the files that it reads."""
    log = directory / "log"
    return Kept(
        name="PgBouncer",
        directory=directory,
        command=[program, str(directory / "pgbouncer.ini")],
        # It says so when it listens everywhere, on the unix socket last.
        is_ready=lambda port: "process up" in log.read_text() and listens(port),
        user=user,
        files=files,
    )


def obey(kept: Kept, order: dict[str, Any]) -> dict[str, object]:
    """Do what one line after the first asks for; return the answer."""
    if "stop" in order and kept.process is not None:
        stop(kept.process, MODES[order["stop"]])
    elif "start" in order:
        start(kept)
    return {"port": kept.port}


def answer(**facts: object) -> None:
    """Tell the drill one thing; a drill that is gone already is no error."""
    try:
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()
    except OSError:
        pass


def main() -> int:
    """Start, say so, obey until the end of stdin, stop, remove."""
    for number in ENDINGS:
        signal.signal(number, lambda *_: sys.exit(0))
    order = json.loads(sys.stdin.readline() or "{}")
    if not order:
        return 1
    directory = kept = None
    try:
        user = account()
        made = tempfile.mkdtemp(prefix="poolproof-drill-", dir=workplace(user))
        directory = Path(made)
        if user is not None:
            os.chown(directory, user.pw_uid, user.pw_gid)
        password = secrets.token_urlsafe(18)
        if "pooler" in order:
            kept = pgbouncer(order["pooler"], order["files"], directory, user)
        else:
            own = order.get("settings", {})
            kept = postgresql(Path(order["home"]), own, directory, user)
            home = Path(kept.command[0]).parents[1]
            initialise(home, directory / "data", password, user)
        start(kept)
        answer(port=kept.port, password=password, user=USER, directory=str(directory))
        for line in iter(sys.stdin.readline, ""):
            answer(**obey(kept, json.loads(line)))
    except (SupervisorError, OSError) as error:
        answer(error=str(error))
        return 1
    finally:
        for number in ENDINGS:
            signal.signal(number, signal.SIG_IGN)
        if kept is not None and kept.process is not None:
            stop(kept.process)
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
