"""Sessions whose socket was shut by a deadline, and that the server still works for.

A server looks at its client when it sends something. One that waits for a lock, or
computes, does not see that the client has gone, and keeps its own locks until it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poolproof._log import Log
from poolproof.errors import DeadlineExceeded
from poolproof.faults.events import on_fault
from poolproof.fork import renewal
from poolproof.pool import deadlines

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolproof.faults.events import FaultEvent
    from poolproof.pool.pool import Pool

__all__ = ["Leftovers"]

_log = Log("poolproof.integrations")


class Leftovers:
    """The sessions that a passed `poolproof.deadline` has left in this process."""

    def __init__(self) -> None:
        self._found: list[tuple[Pool, int]] = []
        self._stop: Callable[[], None] | None = None

    def watch(self) -> None:
        """Remember such sessions from now on. Idempotent."""
        if self._stop is None:
            self._stop = on_fault(self._hear)

    def stop(self) -> None:
        """Remember no more. Idempotent."""
        if self._stop is not None:
            self._stop()
            self._stop = None

    def _hear(self, event: FaultEvent) -> None:
        reason = None if event.exception is None else event.exception.__cause__
        if not isinstance(reason, DeadlineExceeded) or reason.step != "deadline":
            return
        # Heard before the connection is replaced, in the thread that has the block.
        for pool in renewal.pools():
            for entry in pool.entries():
                pid = deadlines.backend_pid(entry)
                if pid == reason.backend_pid and entry.block is deadlines.current():
                    # With the option the control plane ends it, which can prove whose
                    # it is.
                    if pool.settings.end_stranded_backends:
                        return
                    if pid is not None and (pool, pid) not in self._found:
                        self._found.append((pool, pid))
                    return

    def end(self, seconds: float) -> None:
        """Have the server end them, each over a connection of the same pool.

        Args:
            seconds: How long it may take for each, more than 0.
        """
        found, self._found = self._found, []
        for pool, pid in found:
            try:
                with deadlines.deadline(seconds):
                    _terminate(pool, pid)
            except Exception as error:  # noqa: BLE001 - the server may be gone
                _log.warning(
                    "The session with backend pid %s may still be at work: %r",
                    pid,
                    error,
                )


def _terminate(pool: Pool, pid: int) -> None:
    fairy: Any = pool.connect()
    try:
        cursor = fairy.cursor()
        # A pooler shows other numbers than the server's; whoever has this one there
        # must be of the same role, database and name at least.
        cursor.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"  # noqa: S608
            f" where pid = {pid:d} and pid <> pg_backend_pid() and state <> 'idle'"
            " and usename = current_user and datname = current_database()"
            " and application_name = current_setting('application_name')"
        )
        cursor.close()
    finally:
        fairy.close()
