"""What an incident is: a name, a play, and measures with a meaning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolproof.drill.stage import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of one trial; each incident adds its own counts."""

    samples: tuple[str, ...] = ()
    """A few messages and wrong answers, as they came."""

    heard: dict[str, int] = field(default_factory=dict)
    """The texts of the errors that callers got, each with how often."""

    took: dict[str, int] = field(default_factory=dict)
    """How long callers waited for what they asked, as `latency.by_step` counts it."""

    stuck: bool = False
    """A thread of the trial's process hangs: the process must end now."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One line of the drill's table."""

    field: str
    """The count's name in the incident's outcome."""

    label: str
    """What people read."""

    is_fault: bool = False
    """Whether poolproof.Pool must show 0 here for the drill to pass."""

    is_harm: bool = False
    """Whether it went wrong for a caller, though he could see it; a fault is harm."""

    by_drill: bool = False
    """Whether the drill itself causes what `QueuePool` shows here: shown apart."""

    more_is_right: bool = False
    """Whether a larger number is better, against what people expect of such a table."""

    over: Literal["sum", "worst", "median"] = "sum"
    """How the trials are put together."""

    unit: str = ""


HARM: Final = (
    Measure("wrong", "wrong results", is_fault=True),
    Measure("lost", "lost commits", is_fault=True),
    Measure("ghosts", "uncommitted rows kept", is_fault=True),
    Measure("hangs", "hangs", is_fault=True),
)
"""What a service cannot tell by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """Something that happens to services, played with one pool at a time."""

    name: str
    headline: str
    play: Callable[[Stage], Outcome]
    measures: tuple[Measure, ...]
    batch: int = 1
    """Trials that one process plays, one after another, each with a new engine."""

    place: Literal["any", "quiet", "alone"] = "any"
    """What else may run beside it, as it measures time: others that only wait, too,
    or nothing at all."""

    is_long: bool = False
    """Whether it begins before the others, so that the end does not wait for it."""

    quick: int = 1
    """Trials of the default drill, which is to end within two minutes."""

    trials_max: int | None = None
    """More trials than this would only take longer."""

    note: str = ""
    """What the counts alone do not tell; shown below the table."""

    bound_s: float = 45.0
    """Seconds that one trial may last before its process is killed."""

    lacks: Callable[[], str | None] = lambda: None
    """Says what is missing on this machine to play it, None when nothing is."""

    drivers: tuple[str, ...] = ()
    """Those that it is about, where it is about some: asyncio's, say. Empty for all."""

    uses_proxy: bool = False
    """Whether the database is reached through a proxy in it."""

    def drivers_of(self, chosen: tuple[str, ...]) -> tuple[str, ...]:
        """Return the drivers that it is played with.

        Args:
            chosen: The drill's, one or more.

        Returns:
            Those that were chosen. Where it is about some of its own: all of these
            beside several, else the chosen one, or the first.
        """
        if not self.drivers:
            return chosen
        if len(chosen) > 1:
            return self.drivers
        return tuple(d for d in self.drivers if d in chosen) or self.drivers[:1]

    def trials_of(self, wanted: int | None) -> int:
        """Return how many trials are played when *wanted* are asked for.

        Args:
            wanted: 1 or more; None: as many as the default drill has.
        """
        if wanted is None:
            return self.quick
        return wanted if self.trials_max is None else min(wanted, self.trials_max)
