"""How an application is run: what the doctor cannot see, and is told."""

from __future__ import annotations

import dataclasses

__all__ = ["Deployment"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """How many processes run an application, and how.

    Attributes:
        workers: Processes on one machine; None where nobody has said.
        threads: Threads of a process that use the database; None likewise.
        fleet: Machines (or containers) that run it.
        pool_size: Of an engine that is not seen; None takes the engine's.
        max_overflow: Likewise.
        timeout_s: After how many seconds the server of the application ends a request
            or a task (Gunicorn's `timeout`, Celery's time limit); None: never, or not
            said.
        worker_class: Gunicorn's, or ``"prefork"`` and so on of Celery.
        held_s: How long a connection may be held idle before it is news.
        preload: Whether the application is loaded before its processes are forked.
    """

    workers: int | None = None
    threads: int | None = None
    fleet: int = 1
    pool_size: int | None = None
    max_overflow: int | None = None
    timeout_s: float | None = None
    worker_class: str = ""
    held_s: float = 5.0
    preload: bool = False

    @property
    def processes(self) -> int:
        """How many processes there are; 1 where nobody has said."""
        return (self.workers or 1) * self.fleet
