"""What the command line may say of its own arguments: nothing that may be a URL.

A message about an argument quotes it, and one in a wrong place may be a database's URL
with its password.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["without_urls"]

_HIDDEN: Final = "(not shown: it may have a password)"
# A URL, or what is left of one that was misspelled; libpq's own way to write one.
_MAY_BE: Final = re.compile("@|:/|//|password", re.IGNORECASE)


def without_urls(text: str, arguments: Sequence[str]) -> str:
    """Leave out of a message each argument that may be a database's URL.

    Args:
        text: The message.
        arguments: Of the command line.
    """
    spellings = {
        spelling
        for argument in arguments
        for part in (argument, argument.partition("=")[2])
        if _MAY_BE.search(part)
        for spelling in _spellings(part)
    }
    for spelling in sorted(spellings, key=len, reverse=True):
        text = text.replace(spelling, _HIDDEN)
    return text


def _spellings(argument: str) -> Iterator[str]:
    """Yield an argument as messages quote it: as it is, escaped, taken for a path."""
    for one in (argument, str(PurePath(argument))):
        yield one
        yield repr(one)[1:-1]
        yield ascii(one)[1:-1]
