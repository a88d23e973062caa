"""A call that takes no longer than it may, whatever it waits for.

Drivers, resolvers and files block without asking, so the call has a thread of its own.
One that is late is left behind; where it waits for a connection, that is cut.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TooLateError", "within"]

T = TypeVar("T")


class TooLateError(Exception):
    """A call has not ended in its time."""


class _Call(Generic[T]):
    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self.result: list[T] = []
        self.error: BaseException | None = None

    def __call__(self) -> None:
        try:
            self.result.append(self._function())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            self.error = error


def within(
    seconds: float, function: Callable[[], T], *, late: Callable[[], object] = int
) -> T:
    """Call a function, and wait for it no longer than so long.

    Args:
        seconds: How long, more than 0.
        function: Called in a thread of its own.
        late: Called when the time has passed: it ends what the function waits for.

    Returns:
        What the function returns.

    Raises:
        TooLateError: The time has passed.
        BaseException: Whatever the function raises.
    """
    call = _Call(function)
    thread = threading.Thread(target=call, name="poolproof doctor", daemon=True)
    thread.start()
    thread.join(max(seconds, 0.0))
    if call.error is not None:
        raise call.error
    if call.result:
        return call.result[0]
    late()
    raise TooLateError(f"no answer within {seconds:.1f} s")
