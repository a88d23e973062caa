"""What a check has found, or that it found nothing, or why it could not look."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "SEVERITIES",
    "Confidence",
    "Finding",
    "Severity",
    "fine",
    "found",
    "skipped",
]

Severity: TypeAlias = Literal["error", "warning", "note"]
Confidence: TypeAlias = Literal["certain", "likely", "possible"]

SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "note")
_ORDER: Final = {"found": 0, "skipped": 1, "fine": 2}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What came of one check.

    Attributes:
        state: ``"found"``, ``"fine"``, or ``"skipped"`` where nothing could be seen.
        summary: One line: what was found, what is fine, or why it was skipped.
        severity: How bad it is; of no meaning unless it was found.
        confidence: How sure it is.
        evidence: What it rests on, a line each.
        advice: What to do.
        file: The source file that it is about, if there is one.
        line: The line there, from 1.
        code: ``PP101``; the check's.
        name: The check's name.
    """

    state: Literal["found", "fine", "skipped"]
    summary: str
    severity: Severity = "note"
    confidence: Confidence = "certain"
    evidence: tuple[str, ...] = ()
    advice: str = ""
    file: str = ""
    line: int = 0
    code: str = ""
    name: str = ""

    @property
    def rank(self) -> tuple[int, int, str]:
        """What findings are sorted by: the worst first."""
        return (_ORDER[self.state], SEVERITIES.index(self.severity), self.code)


def found(
    severity: Severity,
    summary: str,
    advice: str,
    *,
    evidence: Iterable[str] = (),
    confidence: Confidence = "certain",
    file: str = "",
    line: int = 0,
) -> Finding:
    """Say what is wrong.

    Args:
        severity: ``"error"``: requests fail or answers mix now or under load;
            ``"warning"``: they will when something else happens; ``"note"``: good to
            know.
        summary: One line, with the numbers.
        advice: What to do, one line.
        evidence: What it rests on.
        confidence: How sure it is.
        file: The source file that it is about.
        line: The line there.
    """
    return Finding(
        state="found",
        severity=severity,
        summary=summary,
        advice=advice,
        evidence=tuple(evidence),
        confidence=confidence,
        file=file,
        line=line,
    )


def fine(summary: str, *, evidence: Iterable[str] = ()) -> Finding:
    """Say that nothing is wrong.

    Args:
        summary: One line: what was seen.
        evidence: More of it.
    """
    return Finding(state="fine", summary=summary, evidence=tuple(evidence))


def skipped(reason: str) -> Finding:
    """Say that nothing could be seen.

    Args:
        reason: Why, and what would let it be seen.
    """
    return Finding(state="skipped", summary=reason)
