"""The commands, and what becomes of what they raise."""

from __future__ import annotations

import importlib
import io
import os
import sys
from typing import TYPE_CHECKING, Final

import click

from poolproof.cli.arguments import without_urls
from poolproof.cli.signals import Stopped
from poolproof.cli.status import EXIT_INTERRUPTED, EXIT_PIPE, EXIT_USAGE, OutputClosed
from poolproof.drill.errors import DrillError

if TYPE_CHECKING:
    from collections.abc import Sequence

# Where each command is. `top` is the name that others give to `watch`.
_PLACES: Final = {
    "doctor": "poolproof.cli.doctor:doctor",
    "drill": "poolproof.cli.drill_command:drill",
    "lease": "poolproof.cli.lease:lease",
    "metrics": "poolproof.cli.metrics:metrics",
    "top": "poolproof.cli.watch:watch",
    "watch": "poolproof.cli.watch:watch",
}


def run(argv: Sequence[str] | None) -> int:
    """Run the commands; turn every mistake of the user into one sentence.

    Returns:
        The exit status.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        status = commands.main(
            args=arguments,
            prog_name="poolproof",
            standalone_mode=False,
        )
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(file=shown)
        click.echo(without_urls(shown.getvalue(), arguments), err=True, nl=False)
        status = EXIT_USAGE
    except click.Abort:
        status = EXIT_INTERRUPTED
    except DrillError as error:
        click.echo(f"poolproof: {without_urls(str(error), arguments)}", err=True)
        status = EXIT_USAGE
    except (OutputClosed, BrokenPipeError):
        _give_output_somewhere_to_go()
        status = EXIT_PIPE
    except OSError as error:
        # A full disk, no more processes to be had: nothing that a traceback explains.
        where = f": {error.filename}" if error.filename else ""
        said = without_urls(f"{error.strerror or error}{where}", arguments)
        click.echo(f"poolproof: {said}", err=True)
        _give_output_somewhere_to_go()
        status = EXIT_USAGE
    except Stopped as stopped:
        click.echo(f"poolproof: stopped by {stopped.name}", err=True)
        status = stopped.status
    return int(status or 0)


def _give_output_somewhere_to_go() -> None:
    """Let Python flush stdout once more at its exit, whatever became of it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Commands(click.Group):
    """A group that imports a command when it is wanted, and none of the others.

    The drill has all its incidents, and `metrics` a web server: the others need not
    wait for these.
    """

    def list_commands(self, _ctx: click.Context | None) -> list[str]:
        """Name them, but for what is only another name."""
        return sorted(_PLACES.keys() - {"top"})

    def get_command(
        self, _ctx: click.Context | None, cmd_name: str
    ) -> click.Command | None:
        """Find one; None where there is none of this name."""
        if cmd_name not in _PLACES:
            return None
        module, _, function = _PLACES[cmd_name].partition(":")
        found: click.Command = getattr(importlib.import_module(module), function)
        return found


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="poolproof", prog_name="poolproof")
def commands() -> None:
    """A PostgreSQL connection pool for SQLAlchemy that survives forks."""
