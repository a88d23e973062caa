"""Calls with a clock: how late each came back, if it came back at all.

A busy machine makes every thread late. So a control runs beside the calls, a thread of
the same process that only sleeps: what it oversleeps between a call's deadline and its
return is the machine's own lateness, and no fault of the call.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from poolproof.drill.player import first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Self

SLACK_S: Final = 0.05
"""How much later than its deadline a call may return, beyond the machine's lateness."""

_STEP_S: Final = 0.005
_SLOWEST: Final = 10.0


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
    def due_at(self) -> float:
        """When it should have come back, by the monotonic clock."""
        return self._began + self.limit_s

    @property
    def took_s(self) -> float:
        """Seconds until it came back; until now, when it has not."""
        if self._took_s is None:
            return time.monotonic() - self._began if self._began else 0.0
        return self._took_s

    @property
    def late_s(self) -> float:
        """Seconds past its limit; until now, when it has not come back."""
        return max(0.0, self.took_s - self.limit_s)

    @property
    def complaint(self) -> str:
        """The class and first line of what it raised; empty when it raised nothing."""
        return "" if self.error is None else first_line(self.error)


class Control(threading.Thread):
    """A thread that only sleeps, in short steps, and notes when it woke too late.

    Example:
        >>> with Control() as control:
        ...     call = Call(lambda: None, 1.0)
        ...     all_at_once([call], 1.0)
        >>> control.excess_s(call)
        0.0
    """

    def __init__(self) -> None:
        super().__init__(name="control", daemon=True)
        self._overslept: list[tuple[float, float]] = []
        self._over = threading.Event()

    def run(self) -> None:
        """Sleep until told to stop; note from when until when a sleep was too long."""
        while not self._over.is_set():
            due = time.monotonic() + _STEP_S
            time.sleep(_STEP_S)
            self._overslept.append((due, time.monotonic()))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def late_s(self, call: Call) -> float:
        """Return how long the control overslept between a call's deadline and return.

        Args:
            call: One that came back, or was frozen, while the control ran.
        """
        return self.overslept_s(call.due_at, call.due_at + call.late_s)

    def overslept_s(self, first: float, last: float) -> float:
        """Return how long it overslept between two instants of the monotonic clock."""
        pieces = (min(woke, last) - max(due, first) for due, woke in self._overslept)
        return sum(max(0.0, piece) for piece in pieces)

    def excess_s(self, call: Call) -> float:
        """Return how much later a call was than the machine made it.

        It is told in seconds of a machine at rest. What a call has to do once its
        deadline has passed takes a busy machine longer by as much as the control's
        steps, and it wakes for it more than once.
        """
        late_s, machine_s = call.late_s, self.late_s(call)
        stretch = late_s / max(late_s - machine_s, late_s / _SLOWEST) if late_s else 1.0
        return (late_s - machine_s) / stretch


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
