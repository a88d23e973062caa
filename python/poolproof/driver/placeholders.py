"""PEP 249's ``pyformat`` becomes PostgreSQL's ``$1``.

``%s``, ``%(name)s`` and ``%%`` count wherever they stand, in a text or a comment too,
as with psycopg: a percent sign that is meant is written twice when there are
parameters, and once when there are none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from poolproof import _native
from poolproof.driver.errors import DataError, ProgrammingError

__all__ = ["Parameters", "arranged", "parsed", "text_of", "whole"]

Parameters = Sequence[Any] | Mapping[str, Any]

_MARK = re.compile(r"%(?:\(([^)]+)\)(.)|(.)|$)", re.DOTALL)
# Longer ones are made by machines, each of another length, and are not met again.
_LONGEST_KEPT = 16384
_KEPT = 256


class _Parsed(NamedTuple):
    """A statement in PostgreSQL's form.

    Attributes:
        text: With ``$1`` and so on.
        asked: The same for the bridge, which counts by it how often it is asked.
        names: Whose values they are, in order; None where they have no names.
        needed: How many values it needs.
    """

    text: str
    asked: _native.Statement
    names: tuple[str, ...] | None
    needed: int


def parsed(statement: str) -> _Parsed:
    """Put a statement into PostgreSQL's form.

    Args:
        statement: With placeholders.

    Raises:
        ProgrammingError: A placeholder that is none, or both kinds of them.
    """
    if len(statement) > _LONGEST_KEPT:
        return _parse(statement)
    return _parse_kept(statement)


def _parse(statement: str) -> _Parsed:
    numbers: dict[str, int] = {}
    count = 0
    pieces: list[str] = []
    end = 0
    for found in _MARK.finditer(statement):
        pieces.append(statement[end : found.start()])
        end = found.end()
        name, kind, other = found.groups()
        if other == "%":
            pieces.append("%")
        elif name is not None and kind == "s":
            pieces.append(f"${numbers.setdefault(name, len(numbers) + 1)}")
        elif name is None and other == "s":
            count += 1
            pieces.append(f"${count}")
        else:
            raise ProgrammingError(_no_placeholder(statement, found))
    pieces.append(statement[end:])
    if count and numbers:
        raise ProgrammingError(
            "the statement has both %s and %(name)s: use one kind of placeholder, "
            "%s with a sequence or %(name)s with a mapping"
        )
    text = "".join(pieces)
    if numbers:
        return _Parsed(text, _asked(text), tuple(numbers), len(numbers))
    return _Parsed(text, _asked(text), None, count)


_parse_kept = lru_cache(_KEPT)(_parse)


def whole(statement: str) -> _native.Statement:
    """Take a statement as it is, percent signs and all.

    Args:
        statement: In PostgreSQL's form, or several of them.

    Raises:
        DataError: It is no Unicode.
    """
    if len(statement) > _LONGEST_KEPT:
        return _asked(statement)
    return _asked_kept(statement)


def _asked(text: str) -> _native.Statement:
    try:
        return _native.Statement(text)
    except UnicodeEncodeError:
        raise DataError(
            "a statement with half of a character (a surrogate) cannot be sent: it is "
            "no Unicode; decode the bytes that it came from without 'surrogateescape'"
        ) from None


_asked_kept = lru_cache(_KEPT)(_asked)


def _no_placeholder(statement: str, found: re.Match[str]) -> str:
    seen = found.group().rstrip()
    if seen == "%(":
        seen = statement[found.start() :].split(None, 1)[0]
    return (
        f"{seen!r} at character {found.start() + 1} is no placeholder: write %s or "
        "%(name)s for a value, and %% for a percent sign"
    )


def arranged(statement: _Parsed, parameters: Parameters) -> Sequence[Any]:
    """Put the values in the order of the placeholders.

    Args:
        statement: What `parsed` returned.
        parameters: A sequence for ``%s``, a mapping for ``%(name)s``.

    Returns:
        As many values as the statement needs.

    Raises:
        ProgrammingError: They do not fit.
    """
    if isinstance(parameters, (list, tuple)) or (
        isinstance(parameters, Sequence)
        and not isinstance(parameters, (str, bytes, bytearray))
    ):
        return _in_order(statement, parameters)
    if not isinstance(parameters, Mapping):
        raise ProgrammingError(
            "parameters are a sequence (for %s) or a mapping (for %(name)s), not "
            f"{type(parameters).__name__}; a single one is written (value,)"
        )
    names = statement.names
    if names is None:
        if statement.needed and parameters:
            raise ProgrammingError(
                "the statement has %s, which needs a sequence of values; a mapping "
                "goes with %(name)s"
            )
        if statement.needed:
            raise ProgrammingError(_count(statement.needed, 0))
        return ()
    try:
        return [parameters[name] for name in names]
    except KeyError:
        absent = ", ".join(repr(name) for name in names if name not in parameters)
        raise ProgrammingError(
            f"the statement needs values that were not given: {absent}"
        ) from None


def _in_order(statement: _Parsed, parameters: Sequence[Any]) -> Sequence[Any]:
    if statement.names is not None and parameters:
        raise ProgrammingError(
            "the statement has %(name)s, which needs a mapping of values; a sequence "
            "goes with %s"
        )
    if len(parameters) != statement.needed:
        raise ProgrammingError(_count(statement.needed, len(parameters)))
    return parameters


def _count(needed: int, given: int) -> str:
    return (
        f"the statement has {needed} placeholder{'' if needed == 1 else 's'}, and "
        f"{given} value{' was' if given == 1 else 's were'} given: give one for each, "
        "and write %% where a percent sign is meant"
    )


def text_of(statement: str | bytes) -> str:
    """Return the text of a statement.

    Args:
        statement: What a user gives as one.

    Raises:
        ProgrammingError: It is none.
    """
    if isinstance(statement, str):
        return statement
    if isinstance(statement, bytes):
        try:
            return statement.decode()
        except UnicodeDecodeError:
            raise ProgrammingError(
                "a statement in bytes must be UTF-8: decode it yourself"
            ) from None
    raise ProgrammingError(f"a statement is a text, not {type(statement).__name__}")
