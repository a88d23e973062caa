"""The package's loggers, whose every line says by itself where it is from.

Where an application has set up no logging, Python writes a warning's bare text to
standard error, without logger and level.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter

__all__ = ["MARK", "Log", "Seldom", "fields", "printable", "surroundings", "told_by"]

# What the semantic conventions of OpenTelemetry have a name for.
_NAMES = {
    "error": "error.type",
    "pool": "db.client.connection.pool.name",
    "process_id": "process.pid",
    "sqlstate": "db.response.status_code",
}

MARK = "poolproof: "


class Log(_Adapter):
    """A logger that begins each text with `MARK`.

    Args:
        name: The logger's name: ``"poolproof.guard"``.
    """

    def __init__(self, name: str) -> None:
        """Take the logger of this name."""
        super().__init__(logging.getLogger(name), {})

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Mark one text, and give its record the fields that every one has."""
        kwargs["extra"] = {**fields(), **(kwargs.get("extra") or {})}
        return f"{MARK}{msg}", kwargs


# What every record tells of its surroundings, by name: what is above here adds to it.
told_by: dict[str, Callable[[], object]] = {}


def surroundings() -> dict[str, Any]:
    """Say what is known of wherever the caller is: its scope."""
    return {name: tell() for name, tell in told_by.items()}


def fields(**known: Any) -> dict[str, Any]:
    """Name what is known of a record, for its `extra`, as OpenTelemetry does.

    Args:
        **known: ``pool``, ``sqlstate``, ``error``, ``process_id``; any other name gets
            ``poolproof.`` in front. None is left out.

    Returns:
        With the process and, where there is one, the scope of the caller.
    """
    told = {"process_id": os.getpid(), **surroundings(), **known}
    return {
        _NAMES.get(name, f"poolproof.{name}"): value
        for name, value in told.items()
        if value is not None
    }


def printable(text: str) -> str:
    """Escape what ends a line, steers a terminal, or is no valid Unicode.

    Args:
        text: Names that an application has chosen, messages of a server.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode()
        for each in text
    )


class Seldom:
    """Keeps what may happen a thousand times a second from filling a log.

    Args:
        every_s: The least time between two lines, in seconds, more than 0.
    """

    def __init__(self, every_s: float) -> None:
        """Begin with a line that may be written."""
        self._every_s = every_s
        self._next = 0.0
        self._left_out = 0

    def due(self) -> str | None:
        """Ask whether a line may be written now. Threads that meet here may err by one.

        Returns:
            What to put behind it: how many were left out before, if any. None when it
            may not be written.
        """
        now = time.monotonic()
        if now < self._next:
            self._left_out += 1
            return None
        self._next = now + self._every_s
        before, self._left_out = self._left_out, 0
        return f" ({before} more like it since the last line)" if before else ""
