"""What is known of old versions of PgBouncer, and words that need a session."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["MENDED", "Advisory", "SessionWord", "of_pgbouncer", "session_words"]

MENDED: Final = "1.26.1"
"""The first version of PgBouncer without any of these."""


class Advisory(NamedTuple):
    """A hole of PgBouncer.

    Attributes:
        name: Its number.
        since: The first version that has it.
        mended: The first version that has it no more.
        what: What it does.
    """

    name: str
    since: tuple[int, ...]
    mended: tuple[int, ...]
    what: str


_ALL: Final = (
    Advisory(
        "CVE-2021-3935",
        (0,),
        (1, 16, 1),
        "with certificates of clients, a man in the middle may put statements in",
    ),
    Advisory(
        "CVE-2025-2291",
        (0,),
        (1, 24, 1),
        "auth_query takes passwords whose VALID UNTIL has passed",
    ),
    Advisory(
        "CVE-2025-12819",
        (0,),
        (1, 25, 1),
        "a client that is not logged in may choose search_path for auth_query",
    ),
    Advisory(
        "CVE-2026-6665", (0,), (1, 25, 2), "a server's long nonce overruns a stack"
    ),
    Advisory("CVE-2026-6666", (0,), (1, 25, 2), "an error without SQLSTATE crashes it"),
    Advisory(
        "CVE-2026-107350",
        (1, 17, 0),
        (1, 26, 1),
        "with SCRAM one user may log in as another",
    ),
    Advisory(
        "CVE-2026-107349",
        (1, 20, 0),
        (1, 26, 1),
        "an empty option at the start makes it spin for ever",
    ),
    Advisory(
        "CVE-2026-107348",
        (1, 21, 0),
        (1, 26, 1),
        "a packet's length above 2^31 makes it spin for ever",
    ),
)


def of_pgbouncer(version: tuple[int, ...]) -> list[Advisory]:
    """Return the holes that a version has.

    Args:
        version: Its numbers.
    """
    return [one for one in _ALL if one.since <= version < one.mended]


class SessionWord(NamedTuple):
    """A place in an application that needs a session of its own.

    Attributes:
        file: The source file.
        line: The line.
        word: What stands there.
    """

    file: str
    line: int
    word: str


_WORDS: Final = re.compile(
    r"pg_(?:try_)?advisory_(?:lock|unlock)\w*(?=\()|[\"'](?:listen|unlisten) \w+"
    r"|[\"']set (?:session )?(?!local\b|transaction\b)\w+ *(?:=|to )"
    r"|create temp(?:orary)? table",
    re.IGNORECASE,
)


def session_words(sources: Iterable[Path]) -> Iterator[SessionWord]:
    """Find what needs a session in the sources of an application.

    Args:
        sources: Its files.
    """
    for path in sources:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            continue
        for number, line in enumerate(lines, 1):
            if match := _WORDS.search(line):
                yield SessionWord(str(path), number, match[0].lstrip("\"'"))
