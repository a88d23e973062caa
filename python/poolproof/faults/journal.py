"""The journal: what happened to the connections of this process, and why.

A ring of the last events. An entry names the cause and has the evidence for it, so that
an incident can be told from its journal: inherited over a fork, an answer that nobody
asked for, an interruption in the middle of a call, a proxy that cut it, a deadline.

Whatever is noted is put at the end in one step; nothing here waits for a lock, which a
fork could leave locked. A child begins with a journal of its own, whose first entry is
the fork.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from poolproof import _native
from poolproof._cooperative import locks_are_replaced
from poolproof._log import Log, Seldom, printable, surroundings
from poolproof.fork import renewal

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["JournalEvent", "journal", "note", "write_journal", "write_journal_at"]

MOST: Final = 200
"""How many events are kept."""

MOST_BYTES: Final = 192 << 10
"""How much memory they may take, as far as Python tells; then there are fewer."""

TOGETHER: Final = 256 << 10
"""How much memory they and the histograms of all pools may take."""

LEAST_BYTES: Final = 64 << 10
"""How much they may take however much the histograms do: dozens of the largest."""

# So long what handled a signal before is kept waiting for the journal, in seconds.
_HEAD_START_S: Final = 0.5

# So many faults within so many seconds are written to the log by themselves.
_MANY: Final = 20
_WITHIN_S: Final = 60.0
_WRITTEN_EVERY_S: Final = 600.0
_KINDS_OF_FAULTS: Final = frozenset({"fault", "discard"})

_log = Log("poolproof.journal")


@dataclass(frozen=True, slots=True)
class JournalEvent:
    """Something that happened to a connection, a pool, a lease or this process.

    Attributes:
        when: The time, in UTC.
        kind: ``"fault"``, ``"discard"``, ``"slow_wait"``, ``"timeout"``, ``"fork"``,
            ``"retry"`` or ``"lease"``.
        cause: What happened and why, in a sentence.
        pool: The pool's name, where it is of one.
        evidence: What is known: numbers, process ids, kinds of statements and messages.
            Never a statement's parameters, a row, or a password.
    """

    when: datetime
    kind: str
    cause: str
    pool: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        facts = "".join(
            f"; {name.replace('_', ' ')}: {_shown(value)}"
            for name, value in self.evidence.items()
        )
        of = "" if self.pool is None else f" {self.pool}:"
        when = self.when.isoformat(timespec="milliseconds")
        return printable(f"{when} {self.kind}:{of} {self.cause}{facts}")


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return f"{value:.3g} s" if isinstance(value, float) else str(value)


class _Ring:
    """The events of one process."""

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.pid = os.getpid()
        # Each with its size in bytes.
        self.events: deque[tuple[int, JournalEvent]] = deque(maxlen=MOST)
        self.fault_times: deque[float] = deque(maxlen=_MANY)
        self.written = Seldom(_WRITTEN_EVERY_S)

    def add(self, event: JournalEvent) -> None:
        """Put an event at the end; the oldest leave when they are too many."""
        events = self.events
        known = _parts(events[-1][1]) if events else {}
        events.append((_size(event, known), event))
        # Threads that meet here may drop one more than they must.
        left = sum(size for size, _ in events.copy())
        most = max(LEAST_BYTES, min(MOST_BYTES, TOGETHER - _native.histogram_bytes()))
        while left > most and len(events) > 1:
            left -= events.popleft()[0]


def _size(event: JournalEvent, known: Mapping[int, object]) -> int:
    """Return about how many bytes an event takes beside what is known."""
    new = [part for key, part in _parts(event).items() if key not in known]
    return sum(map(sys.getsizeof, (event, event.when, event.evidence, *new)))


def _parts(event: JournalEvent) -> dict[int, object]:
    """Return what an event consists of, each once."""
    parts: dict[int, object] = {id(event.cause): event.cause}
    for value in event.evidence.values():
        parts[id(value)] = value
        if isinstance(value, tuple):
            parts.update((id(one), one) for one in value)
    return parts


# By generation: the setting of a key is one step, so that the first threads of a child
# agree on one.
_rings: Final[dict[int, _Ring]] = {}
_ring = _rings[_native.generation()] = _Ring(_native.generation())


def _current() -> _Ring:
    """Return the ring of this process; a child's begins with the fork."""
    global _ring  # noqa: PLW0603 - the state of this process
    ring = _ring
    generation = _native.generation()
    if ring.generation == generation:
        return ring
    begun = _Ring(generation)
    begun.add(
        JournalEvent(
            when=datetime.fromtimestamp(_forked_at(generation), timezone.utc),
            kind="fork",
            cause="this process was forked; its copies of its parent's connections "
            "are dead",
            evidence={
                "parent_pid": ring.pid,
                "process_id": begun.pid,
                "forks": generation,
            },
        )
    )
    _ring = _rings.setdefault(generation, begun)
    _rings.pop(ring.generation, None)
    return _ring


def _forked_at(generation: int) -> float:
    """Return when this process was forked, as far as it is known."""
    known = renewal.renewed_generation == generation
    return renewal.renewed_at if known else time.time()


def note(kind: str, cause: str, *, pool: str | None = None, **evidence: Any) -> None:
    """Put an event into the journal.

    Args:
        kind: As in `JournalEvent`.
        cause: What happened and why, in a sentence.
        pool: The pool's name, where it is of one.
        evidence: What is known; None is left out.
    """
    ring = _current()
    found = {**surroundings(), **evidence}
    known = {name: value for name, value in found.items() if value is not None}
    event = JournalEvent(datetime.now(timezone.utc), kind, cause, pool, known)
    ring.add(event)
    if kind in _KINDS_OF_FAULTS:
        _count(ring)


def _count(ring: _Ring) -> None:
    """Write the journal to the log when there are many faults."""
    now = time.monotonic()
    times = ring.fault_times
    times.append(now)
    if len(times) < _MANY or now - times[0] > _WITHIN_S:
        return
    if ring.written.due() is not None:
        _log.warning("%d faults in %.3g s; the journal:", _MANY, now - times[0])
        _write(ring)


def last_cause(backend_pid: int | None) -> str | None:
    """Return why the last fault of a session happened, as far as it is known.

    Args:
        backend_pid: The server's process id of the session, or None.
    """
    if backend_pid is None:
        return None
    for _, event in reversed(_current().events.copy()):
        if event.kind == "fault" and event.evidence.get("backend_pid") == backend_pid:
            return event.cause
    return None


def journal() -> tuple[JournalEvent, ...]:
    """Return what happened to the connections of this process.

    Faults, discarded connections, waits of a second and more, forks, repeated
    transactions and leases: the last 200 of them, fewer where they take more memory
    than 192 KiB, or together with the histograms of all pools more than 256 KiB.

    Returns:
        Events of this process, oldest first.
    """
    return tuple(event for _, event in _current().events.copy())


def write_journal() -> None:
    """Write the journal to the log ``poolproof.journal``, at WARNING, a line each.

    Who asks for it wants to see it, also where no logging was set up.
    """
    _write(_current())


def _write(ring: _Ring) -> None:
    for _, event in ring.events.copy():
        _log.warning("%s", event)


def write_journal_at(signal_number: int = signal.SIGUSR2) -> None:
    """Have the journal written to the log whenever this process gets a signal.

    A thread writes it, for whom the signal interrupts may have the log's locks. A
    handler of Python's that was there before is called as well, when the journal was
    written, or after half a second; what the system would do by itself, such as to end
    the process, is not done. A child inherits it. To call it again changes nothing.

    Args:
        signal_number: The signal. Gunicorn's master takes SIGUSR2 for itself: set it in
            `post_worker_init` there, or choose another.

    Raises:
        ValueError: This is not the main thread, or there is no such signal.
        OSError: The signal cannot be handled (SIGKILL, SIGSTOP).
    """
    before = signal.getsignal(signal_number)
    if not isinstance(before, _Writer):
        signal.signal(signal_number, _Writer(before))


class _Writer:
    """The handler of a signal that writes the journal.

    Args:
        before: What handled it before.
    """

    def __init__(self, before: Any) -> None:
        self._before = before

    def __call__(self, number: int, frame: Any) -> None:
        """Be the handler."""
        thread = threading.Thread(
            target=write_journal, name="poolproof-journal", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # there is no thread to be had
            write_journal()
        if callable(self._before):
            # A greenlet that handles a signal may be the one that nothing may keep.
            if not locks_are_replaced() and thread.ident:
                thread.join(_HEAD_START_S)
            self._before(number, frame)
