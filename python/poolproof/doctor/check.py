"""One check: what it looks at, and the words of its page."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolproof.doctor.finding import Finding, Severity

__all__ = ["Check", "Needs"]

# The server's facts, a connection to ask more over, an application's own engine, or
# nothing of these.
Needs: TypeAlias = Literal["server", "connection", "application", "nothing"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One row of the table of checks.

    Attributes:
        code: ``PP101``. It never changes its meaning.
        name: One or two words.
        worst: The worst severity that it finds.
        looks: What it looks at, and how.
        why: Why that is bad.
        fix: What to do.
        problems: When it is wrong, or sees nothing.
        needs: What must be there for it.
        run: The check itself. It is given the subject, and the server's facts where it
            needs those.
        seconds: How long it may take.
    """

    code: str
    name: str
    worst: Severity
    looks: str
    why: str
    fix: str
    problems: str
    needs: Needs
    run: Callable[..., Finding] | Any
    seconds: float = 1.0
