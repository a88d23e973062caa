"""Listening to faults."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from poolproof.faults import Fault, Verdict

__all__ = ["FaultEvent", "on_fault"]

_log = logging.getLogger("poolproof.guard")


@dataclass(frozen=True, slots=True)
class FaultEvent:
    """One fault, as the guard saw it.

    Attributes:
        fault: What the error means.
        verdict: What it cost, whether to repeat, what is known about the work.
        backend_pid: The server's process id of the session, when it is known.
        process_id: This process.
        driver: The driver's name.
        sqlstate: The SQLSTATE, when there was one.
        exception: The driver's own exception; its text may hold user data.
        when: The time, in UTC.
    """

    fault: Fault
    verdict: Verdict
    backend_pid: int | None
    process_id: int
    driver: str
    sqlstate: str | None
    exception: BaseException
    when: datetime


# No lock: one step on a dict is atomic, and a lock that another thread held at a fork
# would stay locked in the child for ever. The key makes each subscription its own, even
# when a callback is given twice.
_listeners: dict[object, Callable[[FaultEvent], object]] = {}
_emitting: ContextVar[bool] = ContextVar("poolproof_emitting", default=False)


def on_fault(callback: Callable[[FaultEvent], object]) -> Callable[[], None]:
    """Call a function at each fault.

    It is called in the thread that met the fault, before the error reaches the caller,
    so it should be quick. What it returns is ignored; what it raises is logged. A fault
    that it causes itself is logged and not given to listeners again.

    Args:
        callback: Called with a `FaultEvent`.

    Returns:
        A function that ends the subscription; calling it again does nothing.

    Raises:
        TypeError: *callback* cannot be called.
    """
    if not callable(callback):
        msg = f"on_fault needs a function, not {callback!r}"  # type: ignore[unreachable]  # callers without types
        raise TypeError(msg)
    key = object()
    _listeners[key] = callback

    def remove() -> None:
        _listeners.pop(key, None)

    return remove


def emit(event: FaultEvent) -> None:
    """Give an event to every listener."""
    if not _listeners or _emitting.get():
        return
    token = _emitting.set(True)
    try:
        for callback in list(_listeners.values()):
            try:
                callback(event)
            except Exception as error:  # noqa: BLE001 - each is heard by itself
                # Its context is the driver's error, whose text may hold user data.
                error.__suppress_context__ = True
                _log.exception("a listener of poolproof.on_fault failed")
    finally:
        _emitting.reset(token)
