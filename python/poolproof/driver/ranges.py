"""Ranges and multiranges. Their values are SQLAlchemy's `Range` and `MultiRange`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects.postgresql import ranges

from poolproof.driver.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = [
    "MultiRange",
    "Range",
    "multirange_text",
    "parse_multirange",
    "parse_range",
    "range_text",
]

Range = ranges.Range
# SQLAlchemy before 2.0.26 has lists in its place.
MultiRange: type[list[Any]] = getattr(ranges, "MultiRange", list)

_BOUND = r'("(?:[^"\\]|\\.|"")*"|[^,\[\]()"]*)'
_RANGE = re.compile(rf"([\[(]){_BOUND},{_BOUND}([\])])", re.DOTALL)
_ESCAPED = re.compile(r'\\(.)|""', re.DOTALL)
_QUOTES = re.compile(r'(["\\])')


def parse_range(text: str, load: Callable[[str], Any]) -> Range[Any]:
    """Read a range.

    Args:
        text: As the server writes it, such as ``[1,5)`` or ``empty``.
        load: Makes a value of a bound's text.

    Raises:
        DataError: It is no range.
    """
    if text == "empty":
        return Range(empty=True)
    found = _RANGE.fullmatch(text)
    if found is None:
        raise DataError(f"the server sent {text[:80]!r} as a range, which it is not")
    return _made(found, load)


def _made(found: re.Match[str], load: Callable[[str], Any]) -> Range[Any]:
    opens, lower, upper, closes = found.groups()
    bounds: Any = opens + closes
    return Range(_bound(lower, load), _bound(upper, load), bounds=bounds)


def _bound(text: str, load: Callable[[str], Any]) -> Any:
    if not text:
        return None
    if text[0] == '"':
        text = _ESCAPED.sub(lambda one: one.group(1) or '"', text[1:-1])
    return load(text)


def parse_multirange(text: str, load: Callable[[str], Any]) -> list[Range[Any]]:
    """Read a multirange.

    Args:
        text: As the server writes it, such as ``{[1,5),[7,8)}``.
        load: Makes a value of a bound's text.

    Raises:
        DataError: It is no multirange.
    """
    return MultiRange(_members(text, load))


def _members(text: str, load: Callable[[str], Any]) -> Iterator[Range[Any]]:
    position = 1
    while text[position : position + 1] not in {"}", ""}:
        found = _RANGE.match(text, position)
        if found is None:
            raise DataError(
                f"the server sent {text[:80]!r} as a multirange, which it is not"
            )
        yield _made(found, load)
        position = found.end()
        if text[position : position + 1] == ",":
            position += 1


def range_text(value: Range[Any], dump: Callable[[Any], str | None]) -> str:
    """Write a range.

    Args:
        value: The range.
        dump: Makes the text of a bound.
    """
    if value.empty:
        return "empty"
    bounds = (_bound_text(bound, dump) for bound in (value.lower, value.upper))
    return value.bounds[0] + ",".join(bounds) + value.bounds[1]


def _bound_text(value: Any, dump: Callable[[Any], str | None]) -> str:
    text = None if value is None else dump(value)
    return "" if text is None else '"' + _QUOTES.sub(r"\\\1", text) + '"'


def multirange_text(
    values: Iterable[Range[Any]], dump: Callable[[Any], str | None]
) -> str:
    """Write a multirange.

    Args:
        values: Its ranges.
        dump: Makes the text of a bound.
    """
    return "{" + ",".join(range_text(one, dump) for one in values) + "}"
