"""What happens before anything else is imported.

Ctrl-C while the command ``poolproof`` is being imported: that takes some tenths of a
second, in which Python would answer with a traceback out of the middle of an import.
Nothing has begun yet, so nothing is left behind. A program that imports the package as
a library keeps its own handlers. The module imports nothing that the interpreter has
not imported already, `signal` included: each import is time in which the signal may
come. Before this module Python itself starts, and there is no place for a handler.

A subinterpreter is refused, before the extension is loaded: its state (which sockets a
fork severs, which generation this is) belongs to the process, and its fork hooks to the
main interpreter. mod_wsgi is where people meet subinterpreters.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # no stub has it
import os
import sys
from itertools import pairwise

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

_NAME = "poolproof"
# CPython's own module for subinterpreters: private, and renamed in 3.13.
_MODULES = ("_interpreters", "_xxsubinterpreters")


def is_command(argv: list[str], words: list[str]) -> bool:
    """Tell whether this process is the command, by its script or by ``-m``.

    Args:
        argv: `sys.argv`, whose first is ``-m`` while the package is being looked up.
        words: `sys.orig_argv`, the interpreter's own arguments among them.
    """
    if not argv:
        return False
    if argv[0] == "-m":
        return ("-m", _NAME) in pairwise(words)
    return argv[0].rpartition("/")[2] == _NAME


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    """End at once: nothing has been started."""
    os.write(2, b"\npoolproof: stopped by Ctrl-C\n")
    os._exit(128 + number)


if (
    is_command(getattr(sys, "argv", []), sys.orig_argv)
    and _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler
):
    _signal.signal(_signal.SIGINT, _end)


def require_main() -> None:
    """Refuse to be imported in a subinterpreter.

    Raises:
        ImportError: This is not the main interpreter of the process.
    """
    for name in _MODULES:
        try:
            interpreters = __import__(name)
        except ImportError:
            continue
        if interpreters.get_current() != interpreters.get_main():
            message = (
                "poolproof works in the main interpreter of a process only, and this "
                "is a subinterpreter. Under mod_wsgi, set "
                "'WSGIApplicationGroup %{GLOBAL}'"
            )
            raise ImportError(message)
        return


require_main()
