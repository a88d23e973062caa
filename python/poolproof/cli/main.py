"""The command ``poolproof``.

Exit status: 0 when all is well, 1 when `poolproof.Pool` showed a fault, or the doctor's
worst finding is a warning, 3 when that is an error, 2 when
nothing could be proved (a wrong option, a server that cannot be reached, a package
that is missing), 128 + n after signal n (130 on Ctrl-C), 141 when the reader of its
output went away.
"""

from __future__ import annotations

import importlib.util
import signal
import sys
from typing import TYPE_CHECKING, Final, NoReturn

from poolproof import __version__
from poolproof.cli.status import EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

_INSTALL: Final = 'pip install "click>=8.1" "rich>=13"'
# Of `poolproof --help` where the packages for the rest are missing.
_HELP: Final = f"""\
Usage: poolproof [OPTIONS] COMMAND [ARGS]...

  A PostgreSQL connection pool for SQLAlchemy that survives forks.

Options:
  --version   Show the version and exit.
  -h, --help  Show this message and exit.

Commands:
  doctor   Examine a server, the way to it, an application.
  drill    Break pools: QueuePool beside poolproof.Pool.
  lease    Show, prepare and free leases.
  metrics  Serve the metrics of an application's processes.
  watch    Watch the pools of all processes, live.

The commands need {{absent}}: {_INSTALL}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments without the program's name; None means the process's own.

    Returns:
        The exit status.
    """
    absent = [name for name in ("click", "rich") if not importlib.util.find_spec(name)]
    if absent:
        return _plain(sys.argv[1:] if argv is None else argv, " and ".join(absent))
    try:
        from poolproof.cli.commands import run  # noqa: PLC0415 (after the check above)

        return run(argv)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _plain(words: Sequence[str], absent: str) -> int:
    """Say what can be said without the packages that the commands stand on."""
    asked = words[0] if words else ""
    if asked == "--version":
        sys.stdout.write(f"poolproof, version {__version__}\n")
    elif asked in ("--help", "-h"):
        sys.stdout.write(_HELP.format(absent=absent))
    else:
        sys.stderr.write(f"poolproof: the command line needs {absent}: {_INSTALL}\n")
        return EXIT_USAGE
    return EXIT_OK


def command() -> NoReturn:
    """Be the process of the command: run it, and exit with its status."""
    status = main()
    # All is done; an interpreter that is going down would not know its handlers.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(status)
