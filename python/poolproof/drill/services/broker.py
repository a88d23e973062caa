"""A broker for Celery that lasts as long as a ``with`` block.

Redis where its server and its client are installed, otherwise files: both in a
temporary folder that only this user can enter, so nobody needs a password.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from poolproof.drill.errors import SetupError
from poolproof.drill.service import guarded

if TYPE_CHECKING:
    from typing_extensions import Self

_START_S: Final = 20.0
_LOOK_S: Final = 0.02


def redis_server() -> str | None:
    """Return the path of Redis's server, when its client is there as well.

    Celery's extra `redis` has both halves of it: kombu's transport needs more.
    """
    if any(importlib.util.find_spec(half) is None for half in ("redis", "packaging")):
        return None
    return shutil.which("redis-server")


class Broker:
    """What carries tasks and their results.

    Args:
        kind: ``"redis"``, ``"files"``, or None: Redis where it is installed.
    """

    def __init__(self, kind: Literal["redis", "files"] | None = None) -> None:
        self.kind = kind or ("files" if redis_server() is None else "redis")
        self.settings: dict[str, Any] = {}
        """Celery's configuration for both ends, fit for JSON."""
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            name = stack.enter_context(tempfile.TemporaryDirectory())
            start = self._files if self.kind == "files" else self._redis
            self.settings = start(stack, Path(name))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _files(self, _stack: contextlib.ExitStack, folder: Path) -> dict[str, Any]:
        places = {name: str(folder / name) for name in ("queue", "control", "results")}
        for place in places.values():
            Path(place).mkdir()
        return {
            "broker_url": "filesystem://",
            "broker_transport_options": {
                # What is sent is put where the other end looks for it.
                "data_folder_in": places["queue"],
                "data_folder_out": places["queue"],
                "control_folder": places["control"],
                "polling_interval": 0.02,
            },
            "result_backend": f"file://{places['results']}",
        }

    def _redis(self, stack: contextlib.ExitStack, folder: Path) -> dict[str, Any]:
        server = redis_server()
        if server is None:
            raise SetupError(
                "no Redis: it needs Debian's package redis-server, and the client"
                ' (pip install "celery[redis]")'
            )
        path = folder / "redis.sock"
        process = subprocess.Popen(  # noqa: S603 (found on the path)
            [
                *(server, "--port", "0", "--unixsocket", str(path)),
                *("--dir", str(folder), "--save", "", "--appendonly", "no"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        stack.enter_context(guarded(process))
        end = time.monotonic() + _START_S
        while not _listens(path):
            if process.poll() is not None or time.monotonic() > end:
                raise SetupError(f"{server} did not start")
            time.sleep(_LOOK_S)
        return {
            "broker_url": f"redis+socket://{path}",
            "result_backend": f"redis+socket://{path}",
        }


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as one:
        try:
            one.connect(str(path))
        except OSError:
            return False
    return True
