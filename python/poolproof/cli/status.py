"""The exit statuses of the command ``poolproof``."""

from __future__ import annotations

from typing import Final

EXIT_OK: Final = 0
EXIT_FAULT: Final = 1
EXIT_USAGE: Final = 2
# The doctor's worst finding: a warning is 1 as well.
EXIT_ERROR: Final = 3
EXIT_INTERRUPTED: Final = 130
EXIT_PIPE: Final = 141


class OutputClosed(Exception):  # noqa: N818 (no error: ``| head`` is enough)
    """Nobody reads our output any more; click would call that exit status 1."""
