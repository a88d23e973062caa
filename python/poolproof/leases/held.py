"""Which leases this process holds, for metrics."""

from __future__ import annotations

import weakref
from typing import Any

from poolproof import _native
from poolproof._counts import Counts

__all__ = ["held"]

_LOST = "lost"


class HeldLeases:
    """The leases that were acquired in this process and still exist."""

    def __init__(self) -> None:
        """Know none yet."""
        self._begin()

    def _begin(self) -> None:
        self._generation = _native.generation()
        self._leases: weakref.WeakSet[Any] = weakref.WeakSet()
        self._counts = Counts()

    def _renew(self) -> None:
        """Leave a parent's to the parent."""
        if self._generation != _native.generation():
            self._begin()

    def note(self, lease: Any) -> None:
        """Note one that was acquired.

        Args:
            lease: A `LeaseBase`.
        """
        self._renew()
        self._leases.add(lease)

    def count_lost(self) -> None:
        """Count one that was lost, and not given back."""
        self._renew()
        self._counts.add(_LOST)

    @property
    def lost(self) -> int:
        """How many were lost."""
        self._renew()
        return self._counts.copy().get(_LOST, 0)

    @property
    def renewals(self) -> int:
        """How many renewals servers have granted."""
        return _native.lease_renewals()

    def left_s(self) -> list[float]:
        """Return for how long each that is held is certain, in seconds."""
        self._renew()
        while True:
            try:
                leases = list(self._leases)
            except RuntimeError:  # one was added meanwhile
                continue
            break
        natives = [lease._native for lease in leases]  # noqa: SLF001 - this folder's
        return [
            native.counts()[2]
            for native in natives
            if native is not None and native.is_ours and native.phase()[0] == "held"
        ]


held = HeldLeases()
