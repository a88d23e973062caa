"""What stands between an application and its server, as far as that was found out."""

from __future__ import annotations

import dataclasses

__all__ = ["PathFacts"]


@dataclasses.dataclass(slots=True, kw_only=True)
class PathFacts:
    """What the way to a server is like.

    Attributes:
        evidence: What was seen, a line each.
        is_pooled: Whether a pooler lends server sessions.
        is_proxied: Whether something passes bytes on, a pooler or not.
        hints: What only hints at a pooler.
        mode: ``"session"``, ``"transaction"``, ``"statement"``; empty: not known.
        mode_is_certain: Whether that was seen rather than inferred.
        mode_unknown: Why it is not known.
        version: PgBouncer's version, as it writes it; empty: not known.
        config: PgBouncer's configuration; empty where its console lets nobody in.
        database: The row of the database in its SHOW DATABASES.
        no_console: Why its console could not be asked.
    """

    evidence: list[str]
    is_pooled: bool = False
    is_proxied: bool = False
    hints: list[str] = dataclasses.field(default_factory=list)
    mode: str = ""
    mode_is_certain: bool = True
    mode_unknown: str = ""
    version: str = ""
    config: dict[str, str] = dataclasses.field(default_factory=dict)
    database: dict[str, str] = dataclasses.field(default_factory=dict)
    no_console: str = ""
