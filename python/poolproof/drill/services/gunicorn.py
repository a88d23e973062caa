"""Gunicorn with a shop, eight clients, and what they were told.

Some requests raise, some roll back, some pass a deadline, and workers may be killed
under them.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from poolproof.drill.errors import SetupError
from poolproof.drill.pace import slowness
from poolproof.drill.service import Book, Crowd, Service, ServiceOutcome, settle

if TYPE_CHECKING:
    from poolproof.drill.stage import Stage

CLIENTS: Final = 8
# The shop's own, which is loaded in its processes only.
_POOL_MOST: Final = 3
_WORKER: Final = "X-Worker"
# A client opens a new connection after so many requests, so that it meets all workers.
_KEPT: Final = 20
# So many hangs are enough.
_HANGS_MAX: Final = 4
_START_S: Final = 60.0
_STOP_S: Final = 60.0
# What is loaded before the fork must find gevent's thread-locals: a scoped_session that
# does not is one session for all requests of a worker.
_EARLY: Final = "from gevent import monkey\nmonkey.patch_all()\n"
# Of its log, in characters.
_TRACEBACK_MOST: Final = 3000
_HOOKS: Final = "from poolproof.integrations.gunicorn import *\n"

Kind = Literal["gthread", "sync", "gevent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How Gunicorn runs.

    Attributes:
        kind: Its class of workers.
        workers: How many of them, 1 or more.
        threads: Of each worker, for gthread.
        preload: Whether the shop is loaded before the workers are forked.
    """

    kind: Kind = "gthread"
    workers: int = 3
    threads: int = 4
    preload: bool = True

    def render(self, pool: str) -> str:
        """Return the configuration, with the hooks where the pool is poolproof."""
        early = self.preload and self.kind == "gevent"
        return (
            (_EARLY if early else "")
            + (_HOOKS if pool == "poolproof" else "")
            + (
                f"worker_class = {self.kind!r}\n"
                f"workers = {self.workers}\n"
                f"threads = {self.threads if self.kind == 'gthread' else 1}\n"
                f"preload_app = {self.preload}\n"
                "keepalive = 75\n"  # a client that rests for long is not hung up on
                "timeout = 60\n"
                "graceful_timeout = 3\n"
                "loglevel = 'warning'\n"
                "control_socket_disable = True\n"
            )
        )


def serve(
    stage: Stage,
    setting: Setting | None = None,
    *,
    requests: int = 2000,
    kills: int = 0,
    patience_s: float = 30.0,
) -> ServiceOutcome:
    """Let Gunicorn serve all clients, stop it, and settle.

    Args:
        stage: The trial's stage.
        setting: How Gunicorn runs; None: gthread, three workers of four threads,
            preloaded.
        requests: How many, by all clients together.
        kills: How many workers are killed under load.
        patience_s: How long a client waits for an answer, in seconds.
    """
    setting = setting or Setting()
    processes = setting.workers + setting.preload + kills
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "gunicorn.conf.py").write_text(setting.render(stage.pool))
        # Handed over open: a free port's number alone another program may take first.
        place = socket.create_server(("127.0.0.1", 0), backlog=2048)
        address: tuple[str, int] = place.getsockname()
        command = (
            *(sys.executable, "-m", "gunicorn", "--bind", f"fd://{place.fileno()}"),
            "poolproof.drill.services.shop:app",
        )
        with (
            place,
            Crowd(stage) as crowd,
            Service(
                command,
                stage,
                environment={"GUNICORN_CMD_ARGS": ""},
                cwd=Path(folder),
                pass_fds=(place.fileno(),),
            ) as service,
        ):
            place.close()
            seen: set[int] = set()
            service.await_start(
                lambda: _meet(address, seen) >= setting.workers, _START_S
            )
            clients = _Clients(stage, address, patience_s)
            clients.run(requests, kills)
            book = clients.book
            if not service.stop(_STOP_S):
                book.hangs += 1
            if (
                not book.failed
                and (at := (log := service.log()).find("Traceback")) >= 0
            ):
                book.failed.append(f"Gunicorn's log: {log[at:][:_TRACEBACK_MOST]}")
        # One more: what a deadline has left behind, for a moment.
        return settle(stage, book, crowd, allowed=processes * _POOL_MOST + 1)


def _meet(address: tuple[str, int], seen: set[int]) -> int:
    """Knock with all clients at once; return how many workers have answered by now."""

    def knock(_client: int) -> int:
        connection = http.client.HTTPConnection(*address, timeout=5)
        try:
            connection.request("GET", "/")
            return int(connection.getresponse().headers[_WORKER])
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    with ThreadPoolExecutor(CLIENTS) as threads:
        seen |= set(threads.map(knock, range(CLIENTS))) - {0}
    return len(seen)


class _Clients:
    """Clients that take the next request in turn, and write down what they are told."""

    def __init__(
        self, stage: Stage, address: tuple[str, int], patience_s: float
    ) -> None:
        self.book = Book()
        self._tag = stage.tag
        late = 504 if stage.pool == "poolproof" else 200
        self._statuses = {"order": 200, "cancel": 200, "refuse": 409, "late": late}
        self._address = address
        self._patience_s = patience_s * slowness()
        self._lock = threading.Lock()
        self._late = threading.Lock()
        self._next = 0
        self._last = 0
        # Numbers of requests after whose answers a worker is killed.
        self._kill_at: list[int] = []
        self._killed: set[int] = set()

    def run(self, requests: int, kills: int) -> None:
        """Make all requests; kill so many workers meanwhile.

        Raises:
            SetupError: There were too few answers to kill so many workers.
        """
        self._last = requests
        self._kill_at = [requests * (n + 1) // (kills + 1) for n in range(kills)]
        with ThreadPoolExecutor(CLIENTS) as threads:
            for client in [threads.submit(self._serve) for _ in range(CLIENTS)]:
                client.result()
        if self._kill_at and not (self.book.hangs or self.book.failed):
            raise SetupError(f"only {len(self._killed)} of {kills} workers were killed")

    def _take(self) -> int | None:
        """Return the next request's number, None when all are made."""
        with self._lock:
            if self._next >= self._last or self.book.hangs >= _HANGS_MAX:
                return None
            self._next += 1
            return self._next - 1

    def _serve(self) -> None:
        """Be a client."""
        connection: http.client.HTTPConnection | None = None
        asked = 0
        while (number := self._take()) is not None:
            if connection is None or asked % _KEPT == 0:
                if connection is not None:
                    connection.close()
                connection = http.client.HTTPConnection(
                    *self._address, timeout=self._patience_s
                )
            asked += 1
            verb = _verb(number)
            if verb == "late":
                with self._late:
                    self._ask(connection, verb, number)
            else:
                self._ask(connection, verb, number)
        if connection is not None:
            connection.close()

    def _ask(
        self, connection: http.client.HTTPConnection, verb: str, number: int
    ) -> None:
        """Make one request."""
        token = f"{verb}{number}"
        row = f"{self._tag}/{token}"
        try:
            connection.request("GET", f"/{verb}/{token}")
            response = connection.getresponse()
            told = response.read().decode()
        except TimeoutError:
            connection.close()
            with self._lock:
                self.book.hangs += 1
            return
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            self._broken(verb, row, error)
            return
        if response.status != self._statuses[verb]:
            self.book.failed.append(f"{token}: {response.status} {told[:200]}")
            return
        if told != token:
            self.book.wrong.append(f"asked for {token}, got {told[:200]!r}")
        (self.book.committed if verb == "order" else self.book.never).append(row)
        worker = int(response.headers[_WORKER])
        self._maybe_kill(number, worker)

    def _maybe_kill(self, number: int, worker: int) -> None:
        """Kill the worker that has just answered, when it is time to."""
        with self._lock:
            if not self._kill_at or number < self._kill_at[0] or worker in self._killed:
                return
            del self._kill_at[0]
            self._killed.add(worker)
            os.kill(worker, signal.SIGKILL)

    def _broken(self, verb: str, row: str, error: Exception) -> None:
        """Note a connection that broke: by a worker that was killed, or by a fault."""
        if not self._killed:
            self.book.failed.append(f"{row}: {error!r}")
        elif verb == "order":
            self.book.unknown.append(row)
        else:
            self.book.never.append(row)


def _verb(number: int) -> str:
    """Say what a request is: of 100 some 80 are orders, one is late."""
    if number % 100 == 37:  # noqa: PLR2004
        return "late"
    return {3: "cancel", 7: "refuse"}.get(number % 10, "order")
