"""A doctor's report, for people and as plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from poolproof import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from poolproof.doctor.finding import Finding
    from poolproof.doctor.run import Examination

__all__ = ["as_plain", "as_text"]

_SCHEMA: Final = 1
_COLOURS: Final = {"error": "\x1b[1;31m", "warning": "\x1b[33m", "note": "\x1b[36m"}
_PLAIN: Final = "\x1b[0m"
_INDENT: Final = "        "
_ALIKE: Final = 3


def as_plain(report: Examination) -> dict[str, Any]:
    """Write a report for programs.

    Args:
        report: The report.
    """
    return {
        "schema": _SCHEMA,
        "poolproof": __version__,
        "subject": report.subject,
        "server": report.server or None,
        "seconds": round(report.seconds, 3),
        "worst": report.worst or None,
        "ignored": list(report.ignored),
        "findings": [_plain(one) for one in report.findings],
    }


def _plain(finding: Finding) -> dict[str, Any]:
    """Write one finding; what only a finding has is null where nothing was found."""
    is_found = finding.state == "found"
    return {
        "code": finding.code,
        "name": finding.name,
        "state": finding.state,
        "severity": finding.severity if is_found else None,
        "confidence": finding.confidence if is_found else None,
        "summary": finding.summary,
        "evidence": list(finding.evidence),
        "advice": finding.advice or None,
        "file": finding.file or None,
        "line": finding.line or None,
    }


def as_text(report: Examination, *, verbose: bool = False, colour: bool = False) -> str:
    """Write a report for people: the worst first, the rest on one line each.

    Args:
        report: The report.
        verbose: Whether the evidence of what is fine is shown, too.
        colour: Whether severities have colours.
    """
    lines = [_head(report), ""]
    alike = {} if verbose else _alike(report.findings)
    for one in report.findings:
        codes = alike.get(_of_a_kind(one))
        if codes is None:
            lines += _lines(one, verbose=verbose, colour=colour)
        elif one.code == codes[0]:
            lines.append(f"skipped {', '.join(codes)}: {one.summary}")
    lines += ["", _sum(report)]
    return "\n".join(map(_one_line, lines))


def _alike(findings: Iterable[Finding]) -> dict[tuple[str, str], list[str]]:
    """Find what was skipped for one reason, three times or more: one line is enough."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in findings:
        if one.state == "skipped":
            found.setdefault(_of_a_kind(one), []).append(one.code)
    return {kind: codes for kind, codes in found.items() if len(codes) >= _ALIKE}


def _of_a_kind(finding: Finding) -> tuple[str, str]:
    return finding.state, finding.summary


def _head(report: Examination) -> str:
    server = f", PostgreSQL {report.server}" if report.server else ""
    return f"poolproof doctor: {report.subject}{server}"


def _lines(finding: Finding, *, verbose: bool, colour: bool) -> Iterator[str]:
    word = finding.severity if finding.state == "found" else finding.state
    shown = f"{_COLOURS[word]}{word}{_PLAIN}" if colour and word in _COLOURS else word
    padding = " " * (8 - len(word))
    yield f"{shown}{padding}{finding.code} {finding.name}: {finding.summary}"
    if finding.state == "found" or verbose:
        if finding.file:
            yield f"{_INDENT}at {finding.file}:{finding.line}"
        for line in finding.evidence:
            yield f"{_INDENT}| {line}"
    if finding.state == "found":
        unsure = "" if finding.confidence == "certain" else f" ({finding.confidence})"
        yield f"{_INDENT}do: {finding.advice}{unsure}"


def _sum(report: Examination) -> str:
    counts: dict[str, int] = {}
    for one in report.findings:
        word = one.severity if one.state == "found" else one.state
        counts[word] = counts.get(word, 0) + 1
    parts = [f"{count} {word}" for word, count in counts.items()]
    if report.ignored:
        parts.append(f"{len(report.ignored)} ignored")
    took = f"{report.seconds:.1f} s"
    return f"{', '.join(parts)}; {took}. Each code has a page: docs/doctor/"


def _one_line(text: str) -> str:
    """Write what would end the line, or move the cursor, as Python would."""
    kept = "".join(
        one if one.isprintable() or one == "\x1b" else repr(one)[1:-1] for one in text
    )
    # Colours are ours; what else begins like one is not.
    for code in (*_COLOURS.values(), _PLAIN):
        kept = kept.replace(code, code.replace("\x1b", "\0"))
    return kept.replace("\x1b", "\\x1b").replace("\0", "\x1b")
