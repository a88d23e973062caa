"""A throw-away PostgreSQL cluster, run from any directory of server binaries.

What ``initdb`` makes is the same each time and costs half a second of processor time;
so the first cluster of a test run leaves a copy, of which the others are made.

The server refuses to run as root, so root hands it to an unprivileged user: the data
lives in a new directory of that user's, and binaries that the user cannot reach (an
environment below ``/root``) are copied beside the data.  The postmaster is our direct
child.  On Linux the kernel ends it when the test process dies, however that happens.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import pwd
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import URL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

START_SECONDS = 200.0
STOP_SECONDS = 60.0
APPLICATION_NAME = "poolproof-tests"
_PR_SET_PDEATHSIG = 1


class Cluster:
    """One PostgreSQL server with its own data, port and unix socket.

    Args:
        binaries: Directory with ``initdb`` and ``postgres``.
        package: Directory to copy when the server's user cannot reach *binaries*;
            *binaries* lies below it.
        settings: Server settings beyond the defaults, by name.
    """

    host = "127.0.0.1"
    # Where the copies lie, which all processes of a test run share. None: no copies.
    templates: ClassVar[Path | None] = None

    def __init__(
        self,
        binaries: Path,
        *,
        package: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="pp-", dir=_short_temporary_root()))
        self.account = _unprivileged_account() if os.geteuid() == 0 else None
        self.binaries = binaries
        made_by = (binaries / "initdb").stat()
        # A copy of the programs has their sizes and times, but not their path.
        self._kind = f"{made_by.st_size}-{made_by.st_mtime_ns}"
        self.package = package
        self.data = self.home / "data"
        self.log = self.home / "log"
        self.port = 0
        self.settings: dict[str, str] = {
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "max_connections": "100",
            "shared_buffers": "16MB",
            "autovacuum": "off",
            **(settings or {}),
        }
        self._owner = os.getpid()
        self._postmaster: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Create the data and start the server; return when it takes connections.

        Raises:
            RuntimeError: The server did not start; the message carries its log.
        """
        self.home.chmod(0o755)
        if self.account is not None:
            os.chown(self.home, self.account.pw_uid, self.account.pw_gid)
            self._make_binaries_reachable()
        self._make_data()
        for attempt in range(1, 4):
            self.port = _free_port(self.host)
            self._launch()
            if self._became_ready():
                return
            self.kill()
            if "could not bind" not in self.log.read_text() or attempt == 3:
                break
        message = f"PostgreSQL did not start:\n{self.log.read_text()}"
        raise RuntimeError(message)

    def stop(self) -> None:
        """Stop the server and remove its data; does nothing in a forked child."""
        if os.getpid() != self._owner:
            return
        if self._postmaster is not None and self._postmaster.poll() is None:
            self._postmaster.send_signal(signal.SIGINT)  # fast shutdown
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._postmaster.wait(STOP_SECONDS)
        self.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    def kill(self) -> None:
        """End the server at once, if it is still there."""
        if self._postmaster is None:
            return
        if self._postmaster.poll() is None:
            self._postmaster.send_signal(signal.SIGQUIT)  # immediate shutdown
            try:
                self._postmaster.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._postmaster.kill()
                self._postmaster.wait(STOP_SECONDS)
        self._postmaster = None

    def url(self, driver: str, *, unix: bool = False, **query: str) -> URL:
        """Return the URL of the ``postgres`` database for one driver.

        Args:
            driver: ``psycopg2``, ``psycopg`` or ``pg8000``.
            unix: Use the unix socket; otherwise TCP on the loopback address.
            query: Parameters of the URL; ``application_name`` has a default, by which
                the leak check finds our sessions.
        """
        query.setdefault("application_name", APPLICATION_NAME)
        where: dict[str, Any] = {"host": self.host, "port": self.port}
        if unix and driver == "pg8000":
            query["unix_sock"] = str(self.home / f".s.PGSQL.{self.port}")
            where = {}
        elif unix:
            query["host"] = str(self.home)
            where = {"port": self.port}
        return URL.create(
            f"postgresql+{driver}",
            username="postgres",
            database="postgres",
            query=query,
            **where,
        )

    def own(self, path: Path) -> None:
        """Give one file to the server's user, readable by that user alone."""
        path.chmod(0o600)
        if self.account is not None:
            os.chown(path, self.account.pw_uid, self.account.pw_gid)

    def _make_data(self) -> None:
        """Have ``initdb`` make the data, or copy what it has made for another."""
        initdb = ("initdb", "--auth=trust", "--no-sync", "-E", "UTF8", "-U", "postgres")
        if self.templates is None:
            self._run(*initdb)
            return
        template = self.templates / self._kind
        with _alone_in(self.templates):
            if template.exists():
                _copy(template, self.data)
                return
            self._run(*initdb)
            unfinished = template.with_suffix(".part")
            shutil.rmtree(unfinished, ignore_errors=True)
            _copy(self.data, unfinished)
            unfinished.rename(template)

    def _launch(self) -> None:
        options = {
            "listen_addresses": self.host,
            "port": str(self.port),
            "unix_socket_directories": str(self.home),
            **self.settings,
        }
        arguments = [f"-c{name}={value}" for name, value in options.items()]
        with self.log.open("wb") as log:
            self._postmaster = subprocess.Popen(
                [self.binaries / "postgres", "-D", self.data, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.home,
                start_new_session=True,  # Ctrl-C in the terminal is ours, not its
                preexec_fn=_die_with_parent(),  # noqa: PLW1509 - no threads yet
                **self._as_account(),
            )

    def _became_ready(self) -> bool:
        pidfile = self.data / "postmaster.pid"
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._postmaster is None or self._postmaster.poll() is not None:
                return False
            with contextlib.suppress(FileNotFoundError):
                lines = pidfile.read_text().splitlines()
                if len(lines) > 7 and lines[7].strip() == "ready":
                    return True
            time.sleep(0.02)
        return False

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self.binaries / program, "-D", self.data, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=START_SECONDS,
            cwd=self.home,
            check=False,
            **self._as_account(),
        )
        if done.returncode:
            message = f"{program} failed:\n{done.stdout.decode(errors='replace')}"
            raise RuntimeError(message)

    def _as_account(self) -> dict[str, Any]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        environment["LC_ALL"] = "C"
        if self.account is None:
            return {"env": environment}
        environment["HOME"] = str(self.home)
        return {
            "env": environment,
            "user": self.account.pw_uid,
            "group": self.account.pw_gid,
            "extra_groups": [],
        }

    def _make_binaries_reachable(self) -> None:
        program = (self.binaries / "postgres").resolve()
        if all(p.stat().st_mode & stat.S_IXOTH for p in (program, *program.parents)):
            return
        package = self.package or self.binaries.parent
        target = self.home / "server" / package.name
        shutil.copytree(package, target)
        libraries = (
            package.parent / f"{package.name}.libs"
        )  # where auditwheel puts them
        if libraries.is_dir():
            shutil.copytree(libraries, target.parent / libraries.name)
        for path in (target.parent, *target.parent.rglob("*")):
            mode = path.stat().st_mode
            path.chmod(mode | stat.S_IRGRP | stat.S_IROTH)
            if path.is_dir() or mode & stat.S_IXUSR:
                path.chmod(path.stat().st_mode | stat.S_IXGRP | stat.S_IXOTH)
        self.binaries = target / self.binaries.relative_to(package)


@contextlib.contextmanager
def sharing_data(place: Path) -> Iterator[None]:
    """Have the clusters that are made in this block copy each other's first data.

    Args:
        place: A directory for the copies, the same for all processes that share them.
            Whoever leaves the block first removes the copies: who still needs one has
            it made again.
    """
    place.mkdir(exist_ok=True)
    Cluster.templates = place
    try:
        yield
    finally:
        Cluster.templates = None
        with _alone_in(place):
            for template in place.iterdir():
                if template.is_dir():
                    shutil.rmtree(template)


@contextlib.contextmanager
def _alone_in(place: Path) -> Iterator[None]:
    """Keep the other processes out of a directory; they wait."""
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
        yield


def _copy(source: Path, target: Path) -> None:
    """Copy a directory with the owners, rights and times of all that is in it."""
    command = ["cp", "-a", "--", str(source), str(target)]
    subprocess.run(command, check=True, timeout=START_SECONDS)


def _unprivileged_account() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    message = "root needs a user 'postgres' or 'nobody' to run PostgreSQL as"
    raise RuntimeError(message)


def _short_temporary_root() -> str | None:
    # The path of a unix socket is limited to about 100 bytes.
    return tempfile.gettempdir() if len(tempfile.gettempdir()) < 60 else "/tmp"


def _free_port(host: str) -> int:
    """Choose a port below those that the system gives away.

    So nobody gets it for a connection or a proxy while the server is stopped.
    """
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((host, port))
            return port


def _die_with_parent() -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGQUIT))

    return ask
