"""``poolproof lease``: who holds what, for people at a terminal."""

from __future__ import annotations

import json
import re
import sys
from math import isinf
from typing import IO, TYPE_CHECKING, Any

import click
from sqlalchemy import exc, make_url

from poolproof.errors import ControlError
from poolproof.leases.checks import TABLE
from poolproof.leases.table import LeaseTable

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolproof.leases.table import LeaseRow

# Nothing was to be done. What cannot be done ends with 2.
EXIT_FREE = 1
_HEADS = ("name", "state", "holder", "fence", "age", "time left")
_OF_HOLDER = ("host", "pid", "thread", "application", "age_s", "silence_s", "left_s")
_SCHEME = re.compile(r"^[a-z0-9]+(\+\w+)?(?=://)", re.IGNORECASE)
# libpq takes both.
_POSTGRESQL = ("postgresql", "postgres")


class LeaseFailed(click.ClickException):
    """What went wrong, in one sentence."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Say it as the other commands do."""
        click.echo(f"poolproof: {self.message}", file=file, err=file is None)


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say which table of which server."""
    for option in (
        click.option(
            "--url",
            envvar="POOLPROOF_URL",
            metavar="URL",
            help="The database: postgresql://user:password@host/database. A password"
            " is better given in the environment variable POOLPROOF_URL, or in"
            " .pgpass, than on the command line.",
        ),
        click.option(
            "--table",
            default=TABLE,
            show_default=True,
            help="The table that keeps the leases, with a schema before it if wanted.",
        ),
    ):
        command = option(command)
    return command


@click.group(short_help="Show, prepare and free leases.")
def lease() -> None:
    """Show, prepare and free leases.

    The exit status is 0 when it was done, and 2 when it could not be.
    """


@lease.command("list", short_help="Show who holds what.")
@_options
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def show(*, url: str | None, table: str, as_json: bool) -> None:
    """Show every lease of the table: its holder, age, fence and time left."""
    entries = _do(url, table, lambda leases: leases.entries())
    if as_json:
        click.echo(json.dumps([_plain(entry) for entry in entries], indent=2))
        return
    lines = [_HEADS, *(_cells(entry) for entry in entries)]
    if not sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            padded = (cell.ljust(w) for cell, w in zip(line, widths, strict=True))
            click.echo("  ".join(padded).rstrip())
        return
    from rich.console import Console  # noqa: PLC0415 (only for a terminal)
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    shown = Table(*_HEADS, box=None)
    for line in lines[1:]:
        shown.add_row(*map(Text, line))
    Console().print(shown)


@lease.command(short_help="Create the table, or check it.")
@_options
def init(*, url: str | None, table: str) -> None:
    """Create the table, or check that it is as it must be."""
    _do(url, table, lambda leases: leases.create())
    click.echo(f"{table} is ready")


@lease.command(short_help="Take a lease away from its holder.")
@click.argument("name")
@_options
def release(*, name: str, url: str | None, table: str) -> int:
    """Take the lease NAME away from its holder, who is told at its next renewal.

    The exit status is 1 when nobody held it, and 2 when it could not be done.
    """
    freed = _do(url, table, lambda leases: leases.free(name))
    if freed is None:
        click.echo(f"poolproof: nobody holds the lease {name!r}", err=True)
        return EXIT_FREE
    held = f"{name} was held by {_holder(freed)}, with fence {freed.fence}"
    click.echo(_one_line(held))
    return 0


def _do(url: str | None, table: str, what: Callable[[LeaseTable], Any]) -> Any:
    if not url:
        raise LeaseFailed("which database? Give --url, or set POOLPROOF_URL")
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError):
        # Not quoted: it may hold a password.
        raise LeaseFailed("--url is no database URL") from None
    if parsed.get_backend_name() not in _POSTGRESQL:
        raise LeaseFailed("--url: leases need PostgreSQL: postgresql://...")
    try:
        # As it was written: what SQLAlchemy took for the host may be a password's end.
        plain = _SCHEME.sub("postgresql", url.strip(), count=1)
        return what(LeaseTable(plain, table))
    except (ControlError, exc.ArgumentError) as error:
        raise LeaseFailed(str(error)) from None
    except Exception as error:  # noqa: BLE001 - status 1 would say that it is free
        # Only its class: the text of an error that nobody has foreseen may hold a
        # password.
        raise LeaseFailed(
            f"it could not be done, because of a {type(error).__name__} that is not "
            "foreseen; look for a limit of the system's (memory, threads, files)"
        ) from None


def _cells(entry: LeaseRow) -> tuple[str, ...]:
    held = entry.state != "free"
    return (
        _one_line(entry.name),
        entry.state,
        _one_line(_holder(entry)) if held else "-",
        str(entry.fence),
        _length(entry.age_s) if held else "-",
        _length(entry.left_s) if held else "-",
    )


def _plain(entry: LeaseRow) -> dict[str, Any]:
    """Write a lease for programs: who has it is null when nobody has."""
    shown = {"name": entry.name, "state": entry.state, **entry._asdict()}
    del shown["held"]
    if entry.state == "free":
        shown.update(dict.fromkeys(_OF_HOLDER))
    return shown


def _one_line(text: str) -> str:
    """Write what would end the line, or move the cursor, as Python would."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def _holder(entry: LeaseRow) -> str:
    return f"{entry.host} {entry.pid} ({entry.thread}, {entry.application})"


def _length(seconds: float) -> str:
    """Write a length as people read it."""
    sign, left = ("-" if seconds < 0 else ""), abs(seconds)
    if isinf(left):  # somebody wrote so into the table
        return f"{sign}ever"
    if left < 60:  # noqa: PLR2004
        return f"{sign}{left:.1f} s"
    minutes, rest = divmod(round(left), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours} h"] * bool(hours) + [f"{minutes} min"]
    return sign + " ".join(parts + [f"{rest} s"] * (not hours))
