"""``poolproof doctor``: what is wrong between an application and its server."""

from __future__ import annotations

import json
import os
import re
import sys
import time
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from poolproof.cli.deployment import deployment_options
from poolproof.cli.status import EXIT_ERROR, EXIT_USAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from poolproof.doctor.deployment import Deployment
    from poolproof.doctor.run import Examination
    from poolproof.doctor.subject import Subject

EXIT_WARNING: Final = 1
_STATUS: Final = {"error": EXIT_ERROR, "warning": EXIT_WARNING}
_CODE: Final = re.compile("PP[0-9]{3}")


def _codes(
    _context: click.Context, _parameter: click.Parameter, given: Sequence[str]
) -> frozenset[str]:
    """Take codes one by one, or with commas between them."""
    codes = [code.strip().upper() for text in given for code in text.split(",")]
    for code in filter(None, codes):
        if not _CODE.fullmatch(code):
            raise click.BadParameter(f"{code!r} is no code; one is like PP203")
    return frozenset(filter(None, codes))


@click.command(short_help="Examine a server, the way to it, an application.")
@click.argument("target", envvar="POOLPROOF_URL", metavar="URL|MODULE:ENGINE")
@deployment_options
@click.option(
    "--pool-size",
    type=click.IntRange(1),
    help="Of the application's pool, where a URL is examined. [default: 5]",
)
@click.option("--max-overflow", type=click.IntRange(0), help="Likewise. [default: 10]")
@click.option(
    "--patience",
    type=click.FloatRange(1, 100),
    default=1.0,
    show_default=True,
    metavar="TIMES",
    help="How many times as long everything may take, for a slow way or a busy "
    "machine.",
)
@click.option(
    "--ignore",
    multiple=True,
    callback=_codes,
    metavar="CODE",
    help="Leave a check out. May be given several times, or with commas.",
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
@click.option("--sarif", "as_sarif", is_flag=True, help="Write SARIF 2.1.0.")
@click.option(
    "--verbose", "-v", is_flag=True, help="Show what is fine too, and tracebacks."
)
def doctor(
    *,
    target: str,
    patience: float,
    ignore: frozenset[str],
    as_json: bool,
    as_sarif: bool,
    verbose: bool,
    **deployment: Any,
) -> int:
    """Examine a server, the way to it, and an application's engine.

    It only reads: each question stands in a transaction that the server has been told
    is read-only. All of it takes 5 seconds at most. MODULE:ENGINE imports the
    application and looks at its engine; a password in a URL is better given in the
    environment variable POOLPROOF_URL, or in .pgpass, than on the command line.

    Exit status: 0 when nothing is worse than a note, 1 when a warning is the worst,
    3 when an error is, 2 when nothing could be examined.
    """
    # Here, so that --help needs no database package.
    from poolproof.doctor.catalogue import CHECKS  # noqa: PLC0415
    from poolproof.doctor.deployment import Deployment  # noqa: PLC0415
    from poolproof.metrics.automatic import stand_by  # noqa: PLC0415

    if strange := sorted(ignore - {check.code for check in CHECKS}):
        raise click.UsageError(f"--ignore: there is no check {', '.join(strange)}")
    if as_json and as_sarif:
        raise click.UsageError("--json and --sarif are two outputs: give one of them")
    with stand_by():
        return _examined(
            target,
            Deployment(**deployment),
            patience=patience,
            ignore=ignore,
            written=partial(_written, as_json=as_json, as_sarif=as_sarif),
            verbose=verbose,
        )


def _examined(
    target: str,
    deployment: Deployment,
    *,
    patience: float,
    ignore: frozenset[str],
    written: Callable[..., str],
    verbose: bool,
) -> int:
    from poolproof.doctor.catalogue import CHECKS  # noqa: PLC0415
    from poolproof.doctor.errors import DoctorError  # noqa: PLC0415
    from poolproof.doctor.run import TOTAL_S, examine, meet_server  # noqa: PLC0415
    from poolproof.doctor.target import read  # noqa: PLC0415

    subject = None
    failed = None
    began = time.monotonic()
    try:
        subject = read(target, deployment)
        subject.patience = patience
        began = time.monotonic()  # what was imported has taken its own time
        meet_server(subject)
    except DoctorError as error:
        failed = error
    if failed is not None:
        _say(failed, subject, verbose=verbose)
        # What can be seen of an application without its server is shown.
        if subject is None or not subject.is_application:
            return EXIT_USAGE
    assert subject is not None  # noqa: S101 - for the type checker
    left = TOTAL_S - (time.monotonic() - began) / patience
    report = examine(subject, CHECKS, ignore=ignore, seconds=left)
    click.echo(written(report, verbose=verbose))
    return EXIT_USAGE if failed is not None else _STATUS.get(report.worst, 0)


def _written(
    report: Examination, *, as_json: bool, as_sarif: bool, verbose: bool
) -> str:
    from poolproof.cli import doctor_text, sarif  # noqa: PLC0415

    if as_json:
        return json.dumps(doctor_text.as_plain(report), indent=2)
    if as_sarif:
        return json.dumps(sarif.log_of(report), indent=2)
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return doctor_text.as_text(report, verbose=verbose, colour=colour)


def _say(error: BaseException, subject: Subject | None, *, verbose: bool) -> None:
    """Say what kept the doctor from looking."""
    lines = [f"poolproof: {error}"]
    cause = error.__cause__
    if verbose and cause is not None:
        lines = ["".join(traceback.format_exception(cause)).rstrip(), *lines]
    text = "\n".join(lines)
    click.echo(text if subject is None else subject.redact(text), err=True)
