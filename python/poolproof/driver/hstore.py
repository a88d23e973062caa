"""The extension hstore: a mapping of texts to texts, or to None."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from poolproof.driver.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["hstore_text", "parse_hstore"]

_PAIR = re.compile(
    r'"((?:[^"\\]|\\.)*)"\s*=>\s*(?:NULL|"((?:[^"\\]|\\.)*)")(?:\s*,\s*|\Z)',
    re.DOTALL,
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_QUOTES = re.compile(r'(["\\])')


def parse_hstore(text: str) -> dict[str, str | None]:
    """Read an hstore.

    Args:
        text: As the server writes it, such as ``"a"=>"1", "b"=>NULL``.

    Raises:
        DataError: It is no hstore.
    """
    pairs: dict[str, str | None] = {}
    position = 0
    while position < len(text):
        found = _PAIR.match(text, position)
        if found is None:
            raise DataError(
                f"the server sent {text[:80]!r} as an hstore, which it is not"
            )
        key, value = found.groups()
        pairs[_plain(key)] = None if value is None else _plain(value)
        position = found.end()
    return pairs


def _plain(text: str) -> str:
    return _ESCAPED.sub(r"\1", text)


def hstore_text(pairs: Mapping[str, str | None]) -> str:
    """Write an hstore.

    Args:
        pairs: Texts, with a text or None for each.

    Raises:
        DataError: A key or a value is something else.
    """
    pieces = []
    given: Iterable[tuple[object, object]] = pairs.items()
    for key, value in given:
        if not isinstance(key, str) or not (value is None or isinstance(value, str)):
            raise DataError(
                "an hstore has texts, with a text or None for each, not "
                f"{type(key).__name__} with {type(value).__name__}: convert them with "
                "str()"
            )
        said = "NULL" if value is None else _quoted(value)
        pieces.append(f"{_quoted(key)}=>{said}")
    return ",".join(pieces)


def _quoted(text: str) -> str:
    return '"' + _QUOTES.sub(r"\\\1", text) + '"'
