"""What a pool says of itself: plain facts at one instant."""

from __future__ import annotations

import dataclasses
import os
import threading

from poolproof._cooperative import locks_are_replaced
from poolproof.errors import Holder

__all__ = ["PoolStats", "name_holders"]


@dataclasses.dataclass(frozen=True, slots=True)
class PoolStats:
    """The numbers of a pool at one instant, in this process.

    Attributes:
        size: Connections kept (`pool_size`); 0 is without bound.
        max_overflow: Connections allowed beyond `size`; -1 is without bound.
        idle: Slots at rest.
        in_use: Slots that callers have, those that they open or close included.
        maintenance: Slots that the keeper has at this instant, to open one ahead of
            need or to close an old one.
        waiting: Callers waiting for a slot.
        newest_first: Whether the newest of them are served first, because the time of
            others has run out.
        checkouts_total: Times a connection was lent since the pool was made in this
            process. A caller for whom connecting failed was lent none.
        waited_total: Times a slot was lent to a caller who had to wait for it.
        discarded: Connections discarded since then, by reason: ``"dead"``,
            ``"desynchronised"``, ``"in_transaction"``, ``"no_answer"``,
            ``"wrong_answer"``, ``"foreign"``, the step of a deadline with
            ``"_timeout"`` behind it, ``"error"``, ``"invalidated"``, ``"lifetime"``,
            ``"idle"``, ``"drained"``, ``"resized"``,
            ``"host_budget"``, ``"left_out"``.
        stranded: Backends that discarded connections have left behind, by what became
            of them, with `end_stranded_backends`: ``"gone"`` by themselves,
            ``"cancelled"``, ``"terminated"``, ``"lives_on"``, ``"failed"``,
            ``"unrecognised"`` and left alone.
        connect_failures: Attempts to connect that have failed in a row; 0 when the last
            one succeeded.
        breaker_open: Whether callers who need a new connection are refused at once
            (`fail_fast_after`).
        generation: Forks between the start of the program and this process.
        oldest_wait_s: For how long the first of those who wait has waited, in seconds;
            None where nobody waits.
        loop_lag_s: The longest that a loop has let a task wait that had been lent a
            slot, in seconds; None where no task has waited for one.
    """

    size: int
    max_overflow: int
    idle: int
    in_use: int
    maintenance: int
    waiting: int
    newest_first: bool
    checkouts_total: int
    waited_total: int
    discarded: dict[str, int]
    stranded: dict[str, int]
    connect_failures: int
    breaker_open: bool
    generation: int
    oldest_wait_s: float | None
    loop_lag_s: float | None


def name_holders(
    held: list[tuple[int, int, float]], tasks: dict[int, str]
) -> tuple[Holder, ...]:
    """Name who holds slots.

    Args:
        held: Slot, thread and seconds, as the gate knows them.
        tasks: Which slots tasks hold, and what these are called.
    """
    names = _thread_names({thread for _slot, thread, _held_s in held})
    pid = os.getpid()
    holders = []
    for slot, thread, held_s in held:
        name = names.get(thread, f"ended thread {thread}")
        if slot in tasks:
            name = f"{tasks[slot]} of {name}"
        holders.append(Holder(name, pid, held_s))
    return tuple(holders)


def _thread_names(wanted: set[int]) -> dict[int, str]:
    """Name threads of this process by the numbers that the gate knows them by.

    Looks no further than it must: under overload hundreds are refused a second, and
    each names a few of hundreds of threads.
    """
    kind = "a greenlet of " if locks_are_replaced() else ""
    names: dict[int, str] = {}
    missing = set(wanted)
    for thread in threading.enumerate():
        if not missing:
            break
        # The greenlets of a thread have its number; the thread itself came first.
        number = thread.native_id
        if number in missing:
            missing.discard(number)
            names[number] = kind + thread.name
    here = threading.get_native_id()
    if here in missing:
        # Python 3.10 keeps the parent's number for the thread that a fork leaves.
        names[here] = threading.current_thread().name
    return names
