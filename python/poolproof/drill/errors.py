"""What can keep the drill from proving anything.

DrillError
├── UsageError   the user asked for something that cannot be
└── SetupError   the ground gives way: no server, no right, no package
"""

from __future__ import annotations


class DrillError(Exception):
    """The drill cannot run, or cannot go on; the message says what to do."""


class UsageError(DrillError):
    """The command line or the URL is wrong."""


class SetupError(DrillError):
    """The machine or the database does not let the drill do its work."""
