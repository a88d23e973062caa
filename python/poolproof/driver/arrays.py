"""Arrays and rows in the server's text form."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from poolproof.driver.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["array_text", "parse_array", "parse_row", "row_text"]

_BOUNDS = re.compile(r"(?:\[[-+]?\d+:[-+]?\d+\])+=")
_QUOTED = r'"((?:[^"\\]|\\.)*)"'
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_NEEDS_QUOTES = re.compile(r'\A\Z|["{}\\\s,;]|\Anull\Z', re.IGNORECASE)
_FIELD = re.compile(r'"((?:[^"\\]|\\.|"")*)"|([^,()"]*)', re.DOTALL)
_FIELD_ESCAPED = re.compile(r'\\(.)|""', re.DOTALL)
_QUOTES = re.compile(r'(["\\])')


def _tokens(delimiter: str) -> re.Pattern[str]:
    bare = rf"([^{{}}{re.escape(delimiter)}\"\\]+)"
    return re.compile(rf"([{{}}])|{_QUOTED}|{bare}|{re.escape(delimiter)}", re.DOTALL)


_TOKENS = {delimiter: _tokens(delimiter) for delimiter in ",;"}


def parse_array(
    text: str, load: Callable[[str], Any], delimiter: str = ","
) -> list[Any]:
    """Read an array of any depth; its lower bounds are left out.

    Args:
        text: As the server writes it, such as ``{1,NULL}`` or ``[0:1]={1,2}``.
        load: Makes a value of an element's text.
        delimiter: What stands between two elements; a semicolon for boxes.

    Raises:
        DataError: It is no array.
    """
    begun = _BOUNDS.match(text)
    outer: list[Any] = []
    stack = [outer]
    position = begun.end() if begun else 0
    scan = _TOKENS[delimiter].match
    while position < len(text):
        found = scan(text, position)
        if found is None:
            break
        position = found.end()
        brace, quoted, bare = found.groups()
        if brace == "{":
            inner: list[Any] = []
            stack[-1].append(inner)
            stack.append(inner)
        elif brace == "}":
            stack.pop()
            if len(stack) == 1:
                break
        elif quoted is not None:
            stack[-1].append(load(_ESCAPED.sub(r"\1", quoted)))
        elif bare is not None:
            stack[-1].append(None if bare == "NULL" else load(bare))
    if position != len(text) or len(stack) != 1 or len(outer) != 1:
        raise DataError(f"the server sent {text[:80]!r} as an array, which it is not")
    elements: list[Any] = outer[0]
    return elements


def array_text(values: Iterable[Any], dump: Callable[[Any], str | None]) -> str:
    """Write an array.

    Args:
        values: Elements, None, or lists of them.
        dump: Makes the text of an element; None for NULL.

    Raises:
        DataError: A list has itself as an element.
    """
    return _array_text(values, dump, set())


def _array_text(
    values: Iterable[Any], dump: Callable[[Any], str | None], above: set[int]
) -> str:
    if id(values) in above:
        raise DataError("a list that has itself as an element cannot be sent")
    inside = above | {id(values)}
    pieces = []
    for value in values:
        if type(value) is list:
            pieces.append(_array_text(value, dump, inside))
            continue
        text = None if value is None else dump(value)
        if text is None:
            pieces.append("NULL")
        elif _NEEDS_QUOTES.search(text):
            pieces.append('"' + _QUOTES.sub(r"\\\1", text) + '"')
        else:
            pieces.append(text)
    return "{" + ",".join(pieces) + "}"


def parse_row(text: str) -> Iterator[str | None]:
    """Read a row (a composite value): the texts of its fields, None for NULL.

    Args:
        text: As the server writes it, such as ``(1,"a b",)``.

    Raises:
        DataError: It is no row.
    """
    if text[:1] != "(" or text[-1:] != ")":
        raise DataError(f"the server sent {text[:80]!r} as a row, which it is not")
    if text == "()":
        return
    position, end = 1, len(text) - 1
    while True:
        found = _FIELD.match(text, position, end)
        if found is None:  # pragma: no cover - the second branch takes nothing, too
            return
        quoted, bare = found.groups()
        if quoted is not None:
            yield _FIELD_ESCAPED.sub(lambda one: one.group(1) or '"', quoted)
        else:
            yield bare or None
        position = found.end()
        if position >= end:
            return
        if text[position] != ",":
            raise DataError(f"the server sent {text[:80]!r} as a row, which it is not")
        position += 1


def row_text(texts: Iterable[str | None]) -> str:
    """Write a row.

    Args:
        texts: Those of its fields; None for NULL.
    """
    pieces = [
        "" if text is None else '"' + _QUOTES.sub(r"\1\1", text) + '"' for text in texts
    ]
    return "(" + ",".join(pieces) + ")"
