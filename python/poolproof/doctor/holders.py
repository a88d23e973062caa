"""Who holds connections: in this process, and in those that keep their metrics."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any

from poolproof.metrics import files
from poolproof.metrics.process_file import SUFFIX
from poolproof.metrics.snapshot import snapshot
from poolproof.pool.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poolproof.doctor.subject import Subject

__all__ = ["Holding", "holders", "is_seen", "not_seen"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """One connection that somebody holds.

    Attributes:
        process: The process.
        thread: The thread's name.
        scope: The `poolproof.scope` that it was checked out in; None for none.
        backend: The server's process.
        held_s: For how long.
        is_busy: Whether a statement is under way; None where the driver does not say.
    """

    process: int
    thread: str
    scope: str | None
    backend: int | None
    held_s: float
    is_busy: bool | None

    def __str__(self) -> str:
        return (
            f"{self.scope or 'no scope'}: process {self.process}, {self.thread}, "
            f"backend {self.backend or 'unknown'}"
        )


def is_seen(subject: Subject) -> bool:
    """Tell whether anybody's holding could be seen.

    Args:
        subject: What is examined.
    """
    is_ours = subject.is_application and isinstance(subject.pool, Pool)
    directory = files.known_directory()
    return is_ours or (directory is not None and directory.is_dir())


def not_seen() -> int:
    """Count the processes whose metrics this user may not read."""
    directory = files.known_directory()
    if directory is None or not directory.is_dir():
        return 0
    paths = directory.glob(f"*{SUFFIX}")
    return sum(not os.access(path, os.R_OK) for path in paths)


def holders(subject: Subject) -> list[Holding]:
    """Return who holds connections, who has held one longest first.

    Args:
        subject: Its own pool is asked, and where ``POOLPROOF_METRICS_DIR`` names a
            directory, what the processes there have written last.
    """
    found = [*_here(subject), *_elsewhere()]
    return sorted(found, key=lambda one: -one.held_s)


def _here(subject: Subject) -> Iterator[Holding]:
    if not (subject.is_application and isinstance(subject.pool, Pool)):
        return
    for one in snapshot(subject.pool).holders:
        yield Holding(
            process=os.getpid(),
            thread=one.thread,
            scope=one.scope,
            backend=one.backend_pid,
            held_s=one.held_s,
            is_busy=one.is_busy,
        )


def _elsewhere() -> Iterator[Holding]:
    directory = files.known_directory()
    if directory is None or not directory.is_dir():
        return
    for body in files.live(directory):
        holding: list[list[Any]] = body.get("holders", [])
        for _pool, thread, scope, backend, held_s, is_busy in holding:
            yield Holding(
                process=int(body.get("pid", 0)),
                thread=thread,
                scope=scope,
                backend=backend,
                held_s=held_s + body["behind_s"],
                is_busy=is_busy,
            )
