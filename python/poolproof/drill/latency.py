"""How long calls took, counted in steps of 1, 2 and 5."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

STEPS_MS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
"""Upper ends of the steps in milliseconds; what took longer is of the last, `MORE`."""

MORE: Final = "more"
STEPS: Final = (*map(str, STEPS_MS), MORE)
"""The names of the steps, in order."""


def by_step(seconds: Iterable[float]) -> dict[str, int]:
    """Count times by their step.

    Args:
        seconds: How long each call took.

    Returns:
        How many were of each step, by its name; none of the empty ones.
    """
    found = Counter(STEPS[bisect_left(STEPS_MS, one * 1000)] for one in seconds)
    return {step: found[step] for step in STEPS if found[step]}


def together(*counts: Mapping[str, int]) -> dict[str, int]:
    """Add up several counts."""
    every: Counter[str] = Counter()
    for one in counts:
        every.update(one)
    return {step: every[step] for step in STEPS if every[step]}


def percentile(counts: Mapping[str, int], share: float) -> str:
    """Return the step below whose upper end a share of the calls came back.

    Args:
        counts: Of each step, by its name; not empty.
        share: Above 0, at most 1.
    """
    wanted = share * sum(counts.values())
    seen = 0
    for step in STEPS:
        seen += counts.get(step, 0)
        if seen >= wanted:
            return step
    return MORE
