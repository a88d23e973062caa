"""Names that others have chosen, as they may be shown on a terminal."""

from __future__ import annotations

from typing import Final

from poolproof._log import printable

__all__ = ["plain"]

_MOST: Final = 120


def plain(name: object) -> str:
    """Return a name without what steers a terminal or ends a line, and not too long.

    Threads, scopes and applications are named by whoever runs them; what
    ``application_name`` a session has is for its client to say.

    Args:
        name: As it was found.
    """
    text = str(name)
    if len(text) > _MOST:
        text = text[: _MOST - 3] + "..."
    return printable(text)
