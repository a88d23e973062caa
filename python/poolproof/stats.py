"""What a pool says of itself: plain facts at one instant."""

from __future__ import annotations

import dataclasses

__all__ = ["Holder", "PoolStats"]


@dataclasses.dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a slot.

    Attributes:
        thread: Name of the thread that checked the connection out.
        process_id: The process it runs in.
        held_s: For how long, in seconds.
    """

    thread: str
    process_id: int
    held_s: float

    def __str__(self) -> str:
        """Name, process and seconds, for an error's text."""
        return f"{self.thread} (process {self.process_id}) for {self.held_s:.2f} s"


@dataclasses.dataclass(frozen=True, slots=True)
class PoolStats:
    """The numbers of a pool at one instant, in this process.

    Attributes:
        size: Connections kept (`pool_size`); 0 is without bound.
        max_overflow: Connections allowed beyond `size`; -1 is without bound.
        idle: Slots at rest.
        in_use: Slots lent, those being opened or closed included.
        waiting: Callers waiting for a slot.
        checkouts_total: Times a slot was lent since the pool was made in this process.
        waited_total: Times a slot was lent to a caller who had to wait for it.
        generation: Forks between the start of the program and this process.
    """

    size: int
    max_overflow: int
    idle: int
    in_use: int
    waiting: int
    checkouts_total: int
    waited_total: int
    generation: int
