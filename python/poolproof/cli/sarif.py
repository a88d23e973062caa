"""A doctor's report as SARIF 2.1.0, for code hosts and editors.

Source:
    OASIS Standard "Static Analysis Results Interchange Format (SARIF) Version 2.1.0".
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from poolproof import __version__
from poolproof.doctor.catalogue import CHECKS

if TYPE_CHECKING:
    from poolproof.doctor.check import Check
    from poolproof.doctor.finding import Finding
    from poolproof.doctor.run import Examination

__all__ = ["log_of"]

_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
_ROOT: Final = "SRCROOT"
# How SARIF says how sure a rule is, and what came of one.
_KINDS: Final = {"found": "fail", "fine": "pass", "skipped": "open"}


def log_of(report: Examination) -> dict[str, Any]:
    """Write a report as a SARIF log with one run.

    Args:
        report: The report.
    """
    places = {check.code: number for number, check in enumerate(CHECKS)}
    return {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "poolproof doctor",
                        "semanticVersion": __version__,
                        "rules": [_rule(check) for check in CHECKS],
                    }
                },
                "invocations": [{"executionSuccessful": True}],
                "originalUriBaseIds": {_ROOT: {"uri": f"{Path.cwd().as_uri()}/"}},
                "columnKind": "unicodeCodePoints",
                "results": [
                    _result(report, one, places[one.code]) for one in report.findings
                ],
                "properties": {
                    "subject": report.subject,
                    "server": report.server,
                    "ignored": list(report.ignored),
                },
            }
        ],
    }


def _rule(check: Check) -> dict[str, Any]:
    help_text = f"{check.looks}\n\n{check.why}\n\n{check.fix}\n\n{check.problems}"
    return {
        "id": check.code,
        "name": "".join(word.capitalize() for word in check.name.split()),
        "shortDescription": {"text": check.name},
        "fullDescription": {"text": check.why},
        "help": {"text": help_text, "markdown": help_text},
        "defaultConfiguration": {"level": check.worst},
        "properties": {"tags": ["database", "postgresql", "connection-pool"]},
    }


def _result(report: Examination, finding: Finding, place: int) -> dict[str, Any]:
    is_found = finding.state == "found"
    text = f"{finding.summary}. {finding.advice}" if is_found else finding.summary
    told = f"{finding.code} {report.subject} {finding.file}"
    return {
        "ruleId": finding.code,
        "ruleIndex": place,
        "kind": _KINDS[finding.state],
        "level": finding.severity if is_found else "none",
        "message": {"text": text},
        "locations": [_location(report, finding)],
        "partialFingerprints": {
            "poolproof/v1": hashlib.sha256(told.encode()).hexdigest()[:32]
        },
        "properties": {
            "confidence": finding.confidence if is_found else "",
            "evidence": list(finding.evidence),
        },
    }


def _location(report: Examination, finding: Finding) -> dict[str, Any]:
    """Say where: a line of a source, or the engine or server by its name."""
    named = {"name": report.subject, "kind": "resource"}
    if not finding.file:
        return {"logicalLocations": [named]}
    path = Path(finding.file)
    here = Path.cwd()
    place: dict[str, Any] = {"uri": path.as_uri()}
    if path.is_relative_to(here):
        place = {"uri": path.relative_to(here).as_posix(), "uriBaseId": _ROOT}
    return {
        "physicalLocation": {
            "artifactLocation": place,
            "region": {"startLine": max(1, finding.line)},
        },
        "logicalLocations": [named],
    }
