"""Keeping the metrics of this process in its file: a thread that writes once a second.

It starts where `POOLPROOF_METRICS_DIR` is set, with the first connection that a pool of
the process opens, or tries to open; in a child with its own first. What it wrote last
is there when the process is killed.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from poolproof import _native
from poolproof._log import Log
from poolproof._service_thread import ServiceThread
from poolproof.metrics import files
from poolproof.metrics.automatic import is_bystander
from poolproof.metrics.beginning import at_connects
from poolproof.metrics.errors import MetricsError
from poolproof.metrics.process_file import ProcessFile
from poolproof.metrics.snapshot import snapshot
from poolproof.metrics.table import read

if TYPE_CHECKING:
    from poolproof.metrics.table import Samples

__all__ = ["publish", "start", "start_by_environment", "withdraw"]

_log = Log("poolproof.metrics")
_EVERY_S = 1.0


class _Publisher:
    """What writes for one process."""

    def __init__(self, directory: Path) -> None:
        self.generation = _native.generation()
        self._file = ProcessFile(directory)
        files.own_files[self._file.path.name] = self.generation
        self._ends = threading.Event()
        self._has_said_too_long = False
        self._thread = ServiceThread("poolproof-metrics", self._work, lambda: None)

    def begin(self) -> None:
        """Write at once, and again and again."""
        self.write()
        self._thread.start()
        _end_with_workers()

    def _work(self) -> None:
        while not self._ends.wait(_EVERY_S):
            if self.generation != _native.generation():
                return  # a greenlet that lives on in a child
            try:
                self.write()
            except Exception:  # noqa: BLE001 - the next one may be better
                _log.exception("metrics could not be written")

    def write(self) -> Samples:
        """Write what there is now, and return it."""
        process = snapshot()
        samples = read(process)
        holders = [
            [pool.name, one.thread, one.scope, one.backend_pid, one.held_s, one.is_busy]
            for pool in process.pools
            for one in pool.holders
        ]
        text = files.encode(
            samples,
            pid=process.process_id,
            holders=holders,
            is_main=process.is_main,
            written=time.monotonic(),  # of the whole system: others read it, too
        )
        if not self._file.write(text) and not self._has_said_too_long:
            self._has_said_too_long = True
            _log.warning(
                "the metrics are too long for their file, and stay as they were"
            )
        return samples

    def end(self) -> None:
        """Have the thread write no more."""
        self._ends.set()

    def withdraw(self) -> None:
        """End the thread, and remove the file."""
        self.end()
        self._file.path.unlink(missing_ok=True)
        self._file.forget()

    def forget(self) -> None:
        """Leave the file to the parent."""
        self._file.forget()


_publisher: _Publisher | None = None
_is_starting: dict[int, bool] = {}


def start(directory: str | Path | None = None) -> None:
    """Keep the metrics of this process in a file of a directory. Idempotent.

    Children of a fork begin with a file of their own when they open a connection.

    Args:
        directory: Made where it is not there. None takes what the environment names.

    Raises:
        MetricsError: It cannot be made or written to.
    """
    global _publisher  # noqa: PLW0603 - the state of this process
    older = _publisher
    generation = _native.generation()
    if older is not None and older.generation == generation:
        return
    # One step: of two threads that connect at once one goes on.
    if _is_starting.setdefault(generation, False):
        return
    _is_starting[generation] = True
    try:
        place = _made(directory)
        if older is not None:
            older.forget()
        files.own_files.clear()
        files.fold(place)
        publisher = _Publisher(place)
        _publisher = publisher
        publisher.begin()
    finally:
        _is_starting[generation] = False
    if directory is not None:
        os.environ[files.VARIABLE] = str(place)  # for children, and what they start
    _listen()


def withdraw() -> None:
    """Take back what this process has written, and write no more."""
    global _publisher
    publisher, _publisher = _publisher, None
    if publisher is not None and publisher.generation == _native.generation():
        publisher.withdraw()


def publish() -> Samples | None:
    """Write what there is now, if this process keeps a file.

    Returns:
        What was written; None where it keeps none.
    """
    publisher = _publisher
    if publisher is None or publisher.generation != _native.generation():
        return None
    try:
        return publisher.write()
    except Exception:  # noqa: BLE001 - whoever ends goes on
        _log.exception("metrics could not be written")
        return None


def start_by_environment() -> None:
    """Have the first connection start it, where the environment names a directory."""
    if files.known_directory() is not None:
        _listen()


def _listen() -> None:
    at_connects(_see_started)


def _see_started() -> None:
    publisher = _publisher
    if publisher is not None and publisher.generation == _native.generation():
        return
    if is_bystander():
        return
    try:
        start()
    except MetricsError as error:
        # An application without metrics is better than none.
        if not _said:
            _said.append(str(error))
            _log.warning("%s", error)


_said: list[str] = []


def _made(directory: str | Path | None) -> Path:
    found = files.known_directory() if directory is None else Path(directory)
    if found is None:
        return files.directory_of(None)
    try:
        found.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise MetricsError(
            f"metrics cannot be kept in {found}: {error.strerror}; name a directory "
            "that this user may write to"
        ) from None
    return found


def _at_end() -> None:
    publisher = _publisher
    if publisher is not None and publisher.generation == _native.generation():
        publisher.end()
    publish()


def _end_with_workers() -> None:
    """Have workers of `multiprocessing` write at their end: they end by `os._exit`.

    So do those of billiard, Celery's copy of it. Where neither is imported, this
    process is no worker of theirs.
    """
    for name in ("multiprocessing.util", "billiard.util"):
        util = sys.modules.get(name)
        if util is not None:
            util.Finalize(None, _at_end, exitpriority=0)


atexit.register(_at_end)
start_by_environment()
