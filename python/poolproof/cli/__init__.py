"""The command ``poolproof``.

Exit status: 0 when all is well, 1 when `poolproof.Pool` showed a fault, 2 when
nothing could be proved (a wrong option, a server that cannot be reached, a package
that is missing), 128 + n after signal n (130 on Ctrl-C).
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_OK: Final = 0
EXIT_FAULT: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
_EXIT_PIPE: Final = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments without the program's name; None means the process's own.

    Returns:
        The exit status.
    """
    absent = [name for name in ("click", "rich") if not importlib.util.find_spec(name)]
    if absent:
        sys.stderr.write(
            f"poolproof: the command line needs {' and '.join(absent)}:"
            ' pip install "poolproof[cli]", or "poolproof[drill]" for the drill too\n'
        )
        return EXIT_USAGE
    try:
        from poolproof.cli.commands import run  # noqa: PLC0415 (after the check above)

        return run(argv)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout once more at exit; give it somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _EXIT_PIPE


__all__ = ["EXIT_FAULT", "EXIT_INTERRUPTED", "EXIT_OK", "EXIT_USAGE", "main"]
