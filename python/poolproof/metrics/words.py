"""The words that counters are told apart by, as far as they are known beforehand.

Others may come: a listener of `poolproof.on_fault` may have a fault cost what the table
of faults does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poolproof import _native

if TYPE_CHECKING:
    from typing import TypeAlias

    Words: TypeAlias = tuple[tuple[str, ...], ...]

__all__ = [
    "CONNECTS",
    "DISCARDED",
    "FAULTS",
    "PINGS",
    "STEPS",
    "STRANDED",
    "TIMEOUTS",
    "UNITS",
]


def _words(*each: str) -> Words:
    return tuple((word,) for word in each)


_prices = _native.fault_prices()
_NOTHING = "nothing"
# A connection of the parent is refused in the child, and in no pool's list there.
_NO_REASON = "forked"
_STEPS = ("checkout", "ping", "rollback", "reset", "deadline", "hold", "idle_hold")

TIMEOUTS: Final = _words(
    *("slot", "connect", "breaker", "queue_full", "host_budget", "deadline")
)
CONNECTS: Final = _words("ok", "failed")
PINGS: Final = _words("ok", "no_answer", "wrong_answer")
UNITS: Final = _words("done", "not_done", "unknown")
STEPS: Final = _words(*_STEPS)
STRANDED: Final = _words(
    *("gone", "cancelled", "terminated", "lives_on", "failed", "unrecognised")
)

FAULTS: Final = tuple(
    (price.fault, cost)
    for price in _prices
    if price.fault != "none"
    for cost in dict.fromkeys((price.cost, price.blind))
)
"""Each fault with what it costs, on pools that look at their sockets and on others."""

DISCARDED: Final = _words(
    *("dead", "desynchronised", "in_transaction", "no_answer", "wrong_answer"),
    *("foreign", "interrupted", "error", "invalidated", "lifetime", "idle"),
    *("left_out", "drained", "other_loop"),
    *(f"{step}_timeout" for step in _STEPS),
    *(
        price.fault
        for price in _prices
        if price.cost != _NOTHING and price.fault not in ("interrupted", _NO_REASON)
    ),
)
"""Why a connection is discarded: what was found about it, or the fault that it met."""
