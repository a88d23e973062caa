"""How slow the machine is at this moment, for bounds that a busy one would break.

A patience is meant for a process that hangs, not for one that waits for a processor. So
it is stretched by what the same work takes now, in time, for each second of a
processor.
"""

from __future__ import annotations

import time
from typing import Final

_WORK_S: Final = 0.02
_SLOWEST: Final = 10.0


def slowness() -> float:
    """Return seconds that a second of work takes now: 1 at rest, 10 at most.

    It takes 20 ms of a processor to find out.
    """
    began, work = time.monotonic(), time.thread_time()
    while time.thread_time() - work < _WORK_S:
        pass
    return min(_SLOWEST, max(1.0, (time.monotonic() - began) / _WORK_S))


def is_over(since: float, patience_s: float) -> bool:
    """Tell whether a patience has passed, were the machine at rest.

    Args:
        since: An instant of the monotonic clock.
        patience_s: In seconds, for a machine at rest.
    """
    passed_s = time.monotonic() - since
    return passed_s > patience_s and passed_s > patience_s * slowness()
