"""What the log says of leases and heartbeats, under ``poolproof.lease``.

The control plane calls nobody back, so the notifier writes it, soon after it happened.
"""

from __future__ import annotations

from poolproof._log import Log, fields
from poolproof.faults import journal

__all__ = ["BeatLog", "LeaseLog", "log"]

log = Log("poolproof.lease")


class LeaseLog:
    """What was said of one acquisition of a lease."""

    def __init__(self, name: str) -> None:
        """Begin with nothing said.

        Args:
            name: The lease's name.
        """
        self._name = name
        self._fields = fields(lease=name)
        self._blips = 0
        self._is_failing = False

    def look(self, blips: int, in_a_row: int, why: str, certain_s: float) -> None:
        """Say which renewals have failed since the last look, and when one succeeds.

        Args:
            blips: Attempts that failed, since it was acquired.
            in_a_row: Those since the last that succeeded.
            why: What the last of them met with.
            certain_s: For how long the lease is certain from now, in seconds.
        """
        new = blips - self._blips
        if new:
            log.info(
                "Lease %r: failed attempts to renew it: %d, the last: %s. It is "
                "certain for %.2f s more",
                self._name,
                new,
                why,
                certain_s,
                extra=self._fields,
            )
        if (new or self._is_failing) and not in_a_row:
            log.info("Lease %r is renewed again", self._name, extra=self._fields)
        self._blips, self._is_failing = blips, bool(in_a_row)

    def lost(self, reason: str, *, is_ending: bool) -> None:
        """Say that it was lost.

        Args:
            reason: Why.
            is_ending: Whether this process gave it back because it was told to end.
        """
        cause = f"lease {self._name!r} was {'given back' if is_ending else 'lost'}"
        journal.note("lease", f"{cause}: {reason}")
        if is_ending:
            log.info(
                "Lease %r was given back: %s", self._name, reason, extra=self._fields
            )
        else:
            log.warning("Lease %r is lost: %s", self._name, reason, extra=self._fields)


class BeatLog:
    """What was said of one run of a heartbeat."""

    def __init__(self) -> None:
        """Begin with nothing said."""
        self._failures = 0
        self._is_failing = False

    def look(self, failures: int, why: str | None) -> None:
        """Say that it fails, once for failures in a row, and that it beats again.

        Args:
            failures: Attempts that failed, since it was started.
            why: What the last attempt met with; None when it did not fail.
        """
        if why is not None and not self._is_failing:
            log.warning("A heartbeat fails, and is tried again: %s", why)
        elif why is None and failures > self._failures:
            log.info(
                "A heartbeat beats again; failed attempts: %d",
                failures - self._failures,
            )
        if why is None:
            self._failures = failures
        self._is_failing = why is not None
