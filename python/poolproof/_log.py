"""The package's loggers, whose every line says by itself where it is from.

Where an application has set up no logging, Python writes a warning's bare text to
standard error, without logger and level.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter

__all__ = ["MARK", "Log"]

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
        """Mark one text."""
        return f"{MARK}{msg}", kwargs
