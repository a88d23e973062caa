"""A parent and its children ask the same service, each for its own numbers.

Who shares a session with another process reads the other's answers: so each process
asks for numbers that no other asks for, and an answer that is not the number asked for
was somebody else's.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import threading
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ForkDrill", "play"]

_APART: Final = 1_000_000
_CHUNK: Final = 65536
_QUOTED: Final = 5


@dataclass(frozen=True, slots=True)
class ForkDrill:
    """What came of the calls of a parent and its children.

    Attributes:
        processes: The parent and its children.
        right: Calls whose answer was the number that was asked for.
        wrong: Of each call that got another answer: who asked, for what, and the
            answer.
        errors: Of each call that raised: who asked, the class, its first line.
        hung: Processes that did not come to an end in time.
    """

    processes: int
    right: int
    wrong: tuple[str, ...]
    errors: tuple[str, ...]
    hung: tuple[str, ...]

    @property
    def is_right(self) -> bool:
        """Whether every answer was right, and all processes came to an end."""
        return not (self.wrong or self.errors or self.hung)

    def __str__(self) -> str:
        told = (
            f"{self.processes} processes after a fork: {self.right} right answers, "
            f"{len(self.wrong)} wrong, {len(self.errors)} errors, {len(self.hung)} hung"
        )
        lines = [told]
        for name in ("wrong", "errors", "hung"):
            found = getattr(self, name)
            lines += [f"  {name}: {one}" for one in found[:_QUOTED]]
            if len(found) > _QUOTED:
                lines.append(f"  {name}: and {len(found) - _QUOTED} more")
        return "\n".join(lines)


class _Caller:
    """One process' calls, and what it notes of them."""

    def __init__(self, name: str, ask: Callable[[int], object], first: int) -> None:
        self.name = name
        self._ask = ask
        self._first = first
        self.notes: dict[str, Any] = {"right": 0, "wrong": [], "errors": []}

    def run(self, calls: int) -> None:
        """Ask so many times, and compare."""
        for number in range(self._first, self._first + calls):
            try:
                answer = self._ask(number)
            except BaseException as error:  # noqa: BLE001 - pytest.fail() is none less
                line = str(error).strip().partition("\n")[0]
                self.notes["errors"].append(
                    f"{self.name}: {type(error).__name__}: {line}"
                )
                continue
            if answer == number:
                self.notes["right"] += 1
            else:
                told = f"{self.name} asked for {number}, and got {answer!r}"
                self.notes["wrong"].append(told)


def play(
    ask: Callable[[int], object],
    *,
    children: int = 2,
    calls: int = 20,
    timeout: float = 60.0,
) -> ForkDrill:
    """Have the parent ask once, fork, and have all ask at the same time.

    Args:
        ask: Asks the service for a number and returns the answer, which has to be that
            number; such as ``lambda n: session.scalar(text("select :n"), {"n": n})``.
            It is called in the children as well, and has to give back what it takes.
        children: How many processes are forked; 1 or more.
        calls: How many times each process asks; 1 or more.
        timeout: Seconds within which all have to come to an end. Then the children are
            killed. A parent that hangs is left to a thread that goes on to hang.

    Returns:
        What came of it.

    Raises:
        ValueError: *children* or *calls* is below 1, or *timeout* is not above 0.
        AssertionError: The answer was wrong before anything was forked.
    """
    if children < 1 or calls < 1 or not timeout > 0:
        told = f"children={children}, calls={calls}, timeout={timeout}"
        raise ValueError(f"fork_drill needs 1 or more of each, and a time: {told}")
    first = ask(0)
    if first != 0:
        raise AssertionError(f"ask(0) returned {first!r} before anything was forked")
    ends_at = time.monotonic() + timeout
    forked: dict[int, tuple[int, str]] = {}
    try:
        for number in range(1, children + 1):
            name = f"child {number}"
            caller = _Caller(name, ask, number * _APART)
            pid, reading = _fork(caller, calls)
            forked[pid] = reading, name
        parent = _Caller("the parent", ask, _APART * (children + 1))
        # One that hangs can be left in a thread only.
        thread = threading.Thread(target=parent.run, args=(calls,), daemon=True)
        thread.start()
        notes, hung = _listen(dict(forked.values()), ends_at)
        thread.join(max(0.0, ends_at - time.monotonic()))
        hung += [parent.name] if thread.is_alive() else []
    finally:
        _end(forked)
    notes.append(parent.notes)
    return ForkDrill(
        processes=children + 1,
        right=sum(one["right"] for one in notes),
        wrong=tuple(line for one in notes for line in one["wrong"]),
        errors=tuple(line for one in notes for line in one["errors"]),
        hung=tuple(hung),
    )


def _fork(caller: _Caller, calls: int) -> tuple[int, int]:
    """Fork a process that asks; return its number and what to read its notes from."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns of forks beside threads: they are what is tried here.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    status = 1
    try:
        os.close(reading)
        caller.run(calls)
        with open(writing, "wb") as stream:  # noqa: PTH123 - a descriptor
            stream.write(json.dumps(caller.notes).encode())
        status = 0
    finally:
        # The test's own end is its parent's.
        os._exit(status)


def _listen(
    readings: dict[int, str], ends_at: float
) -> tuple[list[dict[str, Any]], list[str]]:
    """Read what the children noted, until the time is over.

    Returns:
        The notes of those that came to an end, and the names of those that did not.
    """
    heard: dict[int, bytes] = dict.fromkeys(readings, b"")
    waiting = set(readings)
    while waiting and (left := ends_at - time.monotonic()) > 0:
        ready, _, _ = select.select(list(waiting), [], [], left)
        for descriptor in ready:
            data = os.read(descriptor, _CHUNK)
            heard[descriptor] += data
            if not data:
                waiting.discard(descriptor)
    notes = []
    for descriptor, name in readings.items():
        if descriptor in waiting:
            continue
        if heard[descriptor]:
            notes.append(json.loads(heard[descriptor]))
        else:
            told = f"{name}: it died before it had told anything"
            notes.append({"right": 0, "wrong": [], "errors": [told]})
    return notes, [readings[descriptor] for descriptor in waiting]


def _end(forked: dict[int, tuple[int, str]]) -> None:
    """Kill those that still run, and collect all."""
    for pid, (reading, _name) in forked.items():
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
