"""Refuses subinterpreters, before the extension is loaded.

The extension's state (which sockets a fork severs, which generation this is) belongs to
the process, and its fork hooks to the main interpreter. mod_wsgi is where people meet
subinterpreters.
"""

from __future__ import annotations

import importlib

# CPython's own module for them: private, and renamed in 3.13.
_MODULES = ("_interpreters", "_xxsubinterpreters")


def require_main() -> None:
    """Refuse to be imported in a subinterpreter.

    Raises:
        ImportError: This is not the main interpreter of the process.
    """
    for name in _MODULES:
        try:
            interpreters = importlib.import_module(name)
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
