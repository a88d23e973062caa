"""What can keep the drill from proving anything.

    DrillError
    ├── UsageFault     the user asked for something that cannot be
    └── CannotDrill    the ground gave way: no server, no right, no package
"""

from __future__ import annotations


class DrillError(Exception):
    """The drill cannot run, or cannot go on; the message says what to do."""


class UsageFault(DrillError):
    """The command line or the URL is wrong."""


class CannotDrill(DrillError):
    """The machine or the database does not let the drill do its work."""
