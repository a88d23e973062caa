"""Calls with a clock: how late each came back, if it came back at all."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from poolproof.drill.player import first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SLACK_S: Final = 0.05
"""How much later than its deadline a call may return, on a quiet machine."""


class Call(threading.Thread):
    """One call in a thread of its own.

    Args:
        act: What is called.
        limit_s: Seconds within which it has to come back.
        after: What is done with its result, outside its time; such as closing it.
    """

    def __init__(
        self,
        act: Callable[[], object],
        limit_s: float,
        after: Callable[[object], object] | None = None,
    ) -> None:
        super().__init__(daemon=True)
        self.limit_s = limit_s
        self.value: object = None
        self.has_returned = False
        self.error: BaseException | None = None
        self._act = act
        self._after = after
        self._began = 0.0
        self._took_s: float | None = None

    def run(self) -> None:
        """Call, look at the clock, and clean up."""
        self._began = time.monotonic()
        try:
            self.value = self._act()
        except BaseException as error:  # noqa: BLE001 (whatever ends it is noted)
            self.error = error
        if self._took_s is None:
            self._took_s = time.monotonic() - self._began
        self.has_returned = True
        if self._after is not None and self.error is None:
            self._after(self.value)

    def freeze(self) -> None:
        """Stop its clock: from now on it is helped."""
        if self._took_s is None:
            self._took_s = time.monotonic() - self._began

    @property
    def late_s(self) -> float:
        """Seconds past its limit; until now, when it has not come back."""
        if not self._began:
            return 0.0
        took_s = self._took_s
        if took_s is None:
            took_s = time.monotonic() - self._began
        return max(0.0, took_s - self.limit_s)

    @property
    def complaint(self) -> str:
        """The class and first line of what it raised; empty when it raised nothing."""
        return "" if self.error is None else first_line(self.error)


def all_at_once(calls: Sequence[Call], patience_s: float) -> None:
    """Start the calls together and wait for them.

    Args:
        calls: They may be still under way when this returns.
        patience_s: Seconds past its limit after which a call is waited for no longer.
    """
    for call in calls:
        call.start()
    began = time.monotonic()
    for call in calls:
        last = began + call.limit_s + patience_s
        while not call.has_returned and time.monotonic() < last:
            call.join(0.002)


def join(calls: Sequence[Call], timeout_s: float) -> bool:
    """Wait until every call and its cleaning up is over; tell whether it was."""
    last = time.monotonic() + timeout_s
    for call in calls:
        call.join(max(0.0, last - time.monotonic()))
    return not any(call.is_alive() for call in calls)
