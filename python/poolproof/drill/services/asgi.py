"""uvicorn with a shop of asyncio's, eight clients, and what they were told.

Every tenth client hangs up while the shop is at work for it, and the shop gives up what
it was doing, as frameworks do.
"""

from __future__ import annotations

import http.client
import itertools
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from poolproof.drill.pace import slowness
from poolproof.drill.service import Book, Crowd, Service, ServiceOutcome, settle

if TYPE_CHECKING:
    from poolproof.drill.stage import Stage

CLIENTS: Final = 8
# The shop's own, which is loaded in its process only.
_POOL_MOST: Final = 3
_STATUSES: Final = {"order": 200, "cancel": 200, "refuse": 409}
_HANGS_MAX: Final = 4
_START_S: Final = 60.0
_STOP_S: Final = 60.0
_PAUSE_S: Final = 0.004


def serve(stage: Stage, *, requests: int, patience_s: float) -> ServiceOutcome:
    """Let uvicorn serve all clients, stop it, and settle.

    Args:
        stage: The trial's stage.
        requests: How many, by all clients together.
        patience_s: How long a client waits for an answer, in seconds.
    """
    # Handed over open: a free port's number alone another program may take first.
    place = socket.create_server(("127.0.0.1", 0), backlog=2048)
    clients = _Clients(stage, place.getsockname(), patience_s)
    command = (
        *(sys.executable, "-m", "uvicorn", "--fd", str(place.fileno())),
        *("--lifespan", "on", "--log-level", "warning", "--no-access-log"),
        *("--timeout-graceful-shutdown", "3"),
        "poolproof.drill.services.async_shop:app",
    )
    with (
        place,
        Crowd(stage) as crowd,
        Service(command, stage, pass_fds=(place.fileno(),)) as service,
    ):
        place.close()
        service.await_start(clients.is_open, _START_S)
        clients.run(requests)
        book = clients.book
        if not service.stop(_STOP_S):
            book.hangs += 1
    # For a moment the server has a session more for each client that has hung up.
    return settle(stage, book, crowd, allowed=_POOL_MOST + CLIENTS)


class _Clients:
    """Clients that take the next request in turn, and write down what they are told."""

    def __init__(
        self, stage: Stage, address: tuple[str, int], patience_s: float
    ) -> None:
        self.book = Book()
        self._tag = stage.tag
        self._address = address
        self._patience_s = patience_s * slowness()

    def is_open(self) -> bool:
        """Knock; tell whether the shop answers."""
        connection = http.client.HTTPConnection(*self._address, timeout=5)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def run(self, requests: int) -> None:
        """Make all requests."""
        # Its `next` is one step, whichever thread takes it.
        numbers = itertools.count()

        def be_a_client() -> None:
            while (number := next(numbers)) < requests:
                if self.book.hangs < _HANGS_MAX:
                    self._ask(number)

        with ThreadPoolExecutor(CLIENTS) as threads:
            for client in [threads.submit(be_a_client) for _ in range(CLIENTS)]:
                client.result()

    def _ask(self, number: int) -> None:
        """Make one request on a connection of its own."""
        verb = _verb(number)
        token = f"{verb}{number}"
        row = f"{self._tag}/{token}"
        book = self.book
        connection = http.client.HTTPConnection(
            *self._address, timeout=self._patience_s
        )
        try:
            connection.request("GET", f"/{verb}/{token}")
            if _hangs_up(number):
                time.sleep(number % 70 / 10 * _PAUSE_S)
                book.unknown.append(row)
                return
            response = connection.getresponse()
            told = response.read().decode()
        except TimeoutError:
            book.hangs += 1
            return
        except (OSError, http.client.HTTPException) as error:
            book.failed.append(f"{token}: {error!r}")
            return
        finally:
            connection.close()
        if response.status != _STATUSES[verb]:
            book.failed.append(f"{token}: {response.status} {told[:200]}")
            return
        if told != token:
            book.wrong.append(f"asked for {token}, got {told[:200]!r}")
        (book.committed if verb == "order" else book.never).append(row)


def _verb(number: int) -> str:
    """Say what a request is: eight of ten are orders."""
    return {3: "cancel", 7: "refuse"}.get(number % 10, "order")


def _hangs_up(number: int) -> bool:
    """Say whether the client of this request does not wait for the answer."""
    return number % 10 == 5  # noqa: PLR2004
