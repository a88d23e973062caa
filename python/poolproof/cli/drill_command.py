"""``poolproof drill``: its options, and where what it finds is written."""

from __future__ import annotations

import errno
import json
import os
import secrets
import sys
from pathlib import Path

import click

from poolproof.cli.status import OutputClosed
from poolproof.drill.errors import SetupError
from poolproof.drill.incidents import INCIDENTS
from poolproof.drill.stage import POOLS
from poolproof.drill.target import DRIVERS, OWN

__all__ = ["drill"]

_SEED_BITS = 31
_PAGES = {".html", ".htm"}
_URL = "POOLPROOF_DRILL_URL"


@click.command(short_help="Break pools: QueuePool beside poolproof.Pool.")
@click.option(
    "--url",
    envvar=_URL,
    metavar="URL",
    help="The database to drill: postgresql://user:password@host/database. A password"
    " is better given in the environment variable POOLPROOF_DRILL_URL than on"
    " the command line. [default: an embedded PostgreSQL]",
)
@click.option(
    "--driver",
    "drivers",
    multiple=True,
    type=click.Choice([*DRIVERS, OWN, "all"]),
    help="May be given several times; all are those of others."
    " [default: psycopg2; with --full: all]",
)
@click.option(
    "--pool",
    type=click.Choice([*POOLS, "both"]),
    default="both",
    show_default=True,
    help="Which pool: SQLAlchemy's QueuePool, poolproof.Pool, or one beside the other.",
)
@click.option(
    "--full",
    is_flag=True,
    help="Every driver, many trials, and incidents as long as in life: the"
    " better part of an hour."
    " [default: two minutes]",
)
@click.option(
    "--trials",
    type=click.IntRange(1, 10_000),
    help="Trials of each incident with each driver and pool; fewer of those that take"
    " long (docs/drill.md). [default: a few; with --full: 25]",
)
@click.option(
    "--incident",
    "incidents",
    multiple=True,
    type=click.Choice(list(INCIDENTS)),
    help="May be given several times. [default: every incident]",
)
@click.option("--verbose", "-v", is_flag=True, help="Show every count.")
@click.option(
    "--report",
    "report_path",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write a report there: a page when it ends in .html, else Markdown.",
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, allow_dash=True),
    metavar="FILE",
    help='Write every count there as JSON; "-" is standard output.',
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**_SEED_BITS - 1),
    help="Repeat the chances of an earlier run. [default: a new one]",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    help="Trials that run side by side. [default: by the number of processors]",
)
def drill(
    *,
    url: str | None,
    drivers: tuple[str, ...],
    pool: str,
    trials: int | None,
    incidents: tuple[str, ...],
    full: bool,
    verbose: bool,
    report_path: str | None,
    json_path: str | None,
    seed: int | None,
    jobs: int | None,
) -> int:
    """Show what forks, crowds, silence and stray bytes do to a connection pool.

    Plays each incident on a real PostgreSQL with each driver, with QueuePool and with
    poolproof.Pool, and counts what went wrong. In a database of yours it makes one
    table with a name of its own, and drops it in the end.

    Exit status: 0 when poolproof.Pool showed no fault, or was not drilled; 1 when it
    showed one; 2 when nothing could be proved.
    """
    # Here, so that --help and --version need no driver and no database package.
    from poolproof.cli.drill import Request, perform  # noqa: PLC0415

    # Nor is it left to the processes that are started, some of which are nobody's.
    os.environ.pop(_URL, None)
    for option, path in (("--json", json_path), ("--report", report_path)):
        if path not in (None, "-"):
            _check_writable(option, Path(str(path)))
    request = Request(
        url=url or None,
        drivers=DRIVERS if "all" in drivers else tuple(dict.fromkeys(drivers)),
        pools=POOLS if pool == "both" else (pool,),
        trials=trials,
        incidents=tuple(
            INCIDENTS[name] for name in dict.fromkeys(incidents or INCIDENTS)
        ),
        seed=secrets.randbits(_SEED_BITS) if seed is None else seed,
        jobs=jobs,
        full=full,
        verbose=verbose,
        as_page=Path(report_path or "").suffix.lower() in _PAGES,
    )
    # Standard output carries either the table or the JSON, never both.
    stream = sys.stderr if json_path == "-" else sys.stdout
    try:
        result = perform(request, stream)
        body = json.dumps(result.report, indent=2, allow_nan=False) + "\n"
        _write(json_path, body)
        _write(report_path, result.text)
    except BrokenPipeError:
        raise OutputClosed from None
    return result.status


def _check_writable(option: str, path: Path) -> None:
    """Find out before minutes of work whether the file can be written."""
    if not path.parent.is_dir():
        number = errno.ENOENT
    elif not os.access(path if path.exists() else path.parent, os.W_OK):
        number = errno.EACCES
    else:
        return
    raise click.BadParameter(f"{path}: {os.strerror(number)}", param_hint=f"'{option}'")


def _write(path: str | None, body: str) -> None:
    """Write a report where the user wants it.

    Raises:
        SetupError: It cannot be written there after all.
    """
    if path is None:
        return
    if path == "-":
        sys.stdout.write(body)
        sys.stdout.flush()
        return
    try:
        # What callers were told may hold what is no text: half a surrogate pair.
        Path(path).write_text(body, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise SetupError(f"cannot write {path}: {error.strerror}") from None
