"""Go through the checks, each bounded in time, and all of them together."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Final

from poolproof.doctor import server_facts
from poolproof.doctor.connection import ReadOnlyConnection
from poolproof.doctor.engines import shown
from poolproof.doctor.errors import NoConnectionError
from poolproof.doctor.finding import Finding, skipped
from poolproof.doctor.refusal import explained, one_line
from poolproof.doctor.time_limit import TooLateError, within

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from poolproof.doctor.check import Check
    from poolproof.doctor.subject import Subject

__all__ = ["CONNECT_S", "TOTAL_S", "Examination", "examine", "meet_server"]

TOTAL_S: Final = 5.0
CONNECT_S: Final = 2.5
# Of the whole, for what is done at the end.
_END_S: Final = 0.3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What came of an examination.

    Attributes:
        subject: What was examined, without a secret.
        server: The server's version; empty where it was not reached.
        seconds: How long it took.
        findings: Of every check, the worst first.
        ignored: Codes of the checks that were left out.
    """

    subject: str
    server: str
    seconds: float
    findings: tuple[Finding, ...]
    ignored: tuple[str, ...] = ()

    @property
    def worst(self) -> str:
        """The worst severity that was found; empty where nothing was."""
        first = self.findings[0] if self.findings else None
        return first.severity if first and first.state == "found" else ""


def meet_server(subject: Subject, seconds: float = CONNECT_S) -> None:
    """Connect to the subject's server, and ask what it says of itself.

    Args:
        subject: It is given the connection and the facts.
        seconds: How long that may take, with usual patience.

    Raises:
        NoConnectionError: There is no connection to be had. The subject knows why.
    """
    connection = ReadOnlyConnection(subject.engine, patience=subject.patience)
    try:
        connection.open(seconds)
    except Exception as error:
        connection.close()
        subject.no_server = explained(subject, error)
        raise NoConnectionError(subject.no_server) from error
    try:
        subject.server = server_facts.ask(connection)
    except Exception as error:
        connection.close()
        said = one_line(subject.redact(str(error))) or type(error).__name__
        subject.no_server = (
            f"{one_line(shown(subject.engine))}: it lets us in, but does not say what "
            f"it is as PostgreSQL 10 and newer do ({said}); is it one, or a pooler's "
            "console?"
        )
        raise NoConnectionError(subject.no_server) from error
    subject.connection = connection


def examine(
    subject: Subject,
    checks: Iterable[Check],
    *,
    ignore: Collection[str] = (),
    seconds: float = TOTAL_S,
) -> Examination:
    """Run checks one after the other.

    Args:
        subject: What is examined; `meet_server` has been called where there is one.
        checks: The checks.
        ignore: Codes of those that are left out.
        seconds: How long all of them may take together, with usual patience.

    Returns:
        What they say.
    """
    began = time.monotonic()
    until = began + seconds * subject.patience - _END_S
    findings = []
    ignored = []
    for check in checks:
        if check.code in ignore:
            ignored.append(check.code)
            continue
        findings += [
            _shown(subject, dataclasses.replace(one, code=check.code, name=check.name))
            for one in _run(subject, check, until - time.monotonic())
        ]
    if subject.connection is not None:
        subject.connection.close()
        subject.connection = None
    server = subject.server
    return Examination(
        subject=subject.shown,
        server="" if server is None else server.settings.get("server_version", ""),
        seconds=time.monotonic() - began,
        findings=tuple(sorted(findings, key=lambda one: one.rank)),
        ignored=tuple(ignored),
    )


def _run(subject: Subject, check: Check, left: float) -> list[Finding]:
    """Run one check; whatever becomes of it is a finding, or several."""
    if missing := _missing(subject, check):
        return [skipped(missing)]
    if left <= 0:
        return [skipped("no time was left for it: the others took it all")]
    arguments = (subject, subject.server) if check.needs == "server" else (subject,)
    limit = min(left, check.seconds * subject.patience)
    try:
        said = within(limit, lambda: check.run(*arguments))
    except TooLateError:
        return [skipped(f"it had not ended after {limit:.1f} s")]
    except Exception as error:  # noqa: BLE001 - of a driver, of any class
        return [skipped(f"it could not look: {explained(subject, error)}")]
    return [said] if isinstance(said, Finding) else list(said)


def _missing(subject: Subject, check: Check) -> str:
    if check.needs == "application" and not subject.is_application:
        return "it looks at an application: give MODULE:ENGINE in place of a URL"
    if check.needs in ("server", "connection") and subject.server is None:
        return f"the server was not reached: {subject.no_server}"
    if check.needs == "connection" and (
        subject.connection is None or not subject.connection.is_open
    ):
        return "the connection was given up: an earlier question had no answer in time"
    return ""


def _shown(subject: Subject, finding: Finding) -> Finding:
    """Take every secret out of a finding."""
    return dataclasses.replace(
        finding,
        summary=subject.redact(finding.summary),
        advice=subject.redact(finding.advice),
        evidence=tuple(map(subject.redact, finding.evidence)),
    )
