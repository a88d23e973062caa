"""``poolproof watch``: the pools of all processes at a glance, once a second."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from poolproof.cli.arguments import without_urls
from poolproof.cli.signals import stoppable
from poolproof.cli.status import EXIT_OK, EXIT_USAGE

if TYPE_CHECKING:
    from poolproof.watch.facts import View
    from poolproof.watch.sources import WatchedServer

_SHORTEST_S = 0.1
_PIPE_WIDTH = 160


@click.command(short_help="Watch the pools of all processes, live.")
@click.argument("url", envvar="POOLPROOF_URL", required=False, metavar="[URL]")
@click.option(
    "--directory",
    "--dir",
    type=click.Path(path_type=Path),
    metavar="DIRECTORY",
    help="Where the processes keep their metrics. [default: POOLPROOF_METRICS_DIR]",
)
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(_SHORTEST_S),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to look.",
)
@click.option(
    "--sort",
    "order",
    type=click.Choice(["held", "process", "scope", "thread", "idle"]),
    default="held",
    show_default=True,
    help="In which order holders are shown; its first letter is a key, too.",
)
@click.option("--once", is_flag=True, help="Look once, and end.")
@click.option("--json", "as_json", is_flag=True, help="Look once, and write JSON.")
def watch(
    *,
    url: str | None,
    directory: Path | None,
    every_s: float,
    order: str,
    once: bool,
    as_json: bool,
) -> int:
    """Watch who holds which connection, in which scope, for how long.

    The processes say it in files of a directory, POOLPROOF_METRICS_DIR; with a URL,
    what the server sees of the same sessions stands beside it. Either is enough. Keys:
    q quits; h, p, s, t, i sort.

    Exit status: 0; 130 after Ctrl-C; 2 when there is nothing to watch.
    """
    # Here, so that --help needs no database package.
    from poolproof.doctor.errors import DoctorError  # noqa: PLC0415
    from poolproof.metrics.errors import MetricsError  # noqa: PLC0415
    from poolproof.metrics.files import (  # noqa: PLC0415
        directory_of,
        known_directory,
    )
    from poolproof.watch.sources import WatchedServer, look  # noqa: PLC0415

    with stoppable() as stop, ExitStack() as stack, stop.may_end():
        try:
            place = None
            if directory or known_directory() or not url:
                place = directory_of(directory)
            activity = WatchedServer(url) if url else None
        except (DoctorError, MetricsError) as error:
            said = without_urls(str(error), [str(directory or "")])
            click.echo(f"poolproof: {said}", err=True)
            return EXIT_USAGE
        if activity is not None:
            stack.callback(activity.close)
        key = order[0]
        if as_json:
            click.echo(json.dumps(_plain(look(place, activity, key)), indent=2))
        elif once or sys.stdout is None or not sys.stdout.isatty():
            _show(look(place, activity, key), key)
        else:
            _run(place, activity, key, every_s)
    return EXIT_OK


def _plain(view: View) -> dict[str, object]:
    """Return a view as plain data."""
    return dataclasses.asdict(view)


def _show(view: View, order: str) -> None:
    """Write it once, as wide as the terminal is; wider where there is none."""
    from rich.console import Console  # noqa: PLC0415

    from poolproof.watch.screen import screen  # noqa: PLC0415

    # A pipe has no width: nothing is cut there, but for who asks for it.
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPE_WIDTH
    console.print(screen(view, order=order, height=None, keys=False))


def _run(
    place: Path | None, activity: WatchedServer | None, order: str, every_s: float
) -> None:
    """Show it again and again, until told to quit."""
    from rich.console import Console  # noqa: PLC0415

    from poolproof.watch.keys import SUSPEND, keys  # noqa: PLC0415
    from poolproof.watch.screen import screen  # noqa: PLC0415
    from poolproof.watch.sources import ORDERS, look  # noqa: PLC0415

    console = Console()
    with keys() as typed, console.screen(hide_cursor=True) as shown:
        while True:
            began = time.monotonic()
            view = look(place, activity, order)
            height = console.size.height
            shown.update(screen(view, order=order, height=height, keys=typed.are_there))
            # A key is answered at once, by what was seen last; and heard where a look
            # takes longer than its turn.
            is_over = False
            while not is_over:
                left = began + every_s - time.monotonic()
                is_over = left <= 0
                for key in typed.pressed(max(0.0, left)):
                    if key in "qQ":
                        return
                    if key == SUSPEND:
                        console.set_alt_screen(False)
                        console.show_cursor(True)
                        typed.suspend()
                        console.set_alt_screen(True)
                        console.show_cursor(False)
                        began = -math.inf
                    if key in ORDERS:
                        order = key
                        began = -math.inf
