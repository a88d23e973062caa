"""What may be a lease's name, its table, and a length of time."""

from __future__ import annotations

import re
from math import isfinite
from typing import Any

from sqlalchemy import exc

from poolproof import parameters

__all__ = ["TABLE", "check_name", "check_seconds", "check_table"]

TABLE = "poolproof_lease"
_NAME_LIMIT = 200
_TABLE_LIMIT = 63
_MOST_S = 1e9
_SURROGATE = re.compile("[\ud800-\udfff]")


def check_name(name: Any) -> None:
    """Check the name of a lease.

    Args:
        name: What was given.

    Raises:
        ArgumentError: It is not 1 to 200 bytes of text.
    """
    if not isinstance(name, str):
        raise exc.ArgumentError(f"a lease's name must be text, not {type(name)}")
    size = len(name.encode("utf-8", "surrogatepass"))
    if (
        not 0 < size <= _NAME_LIMIT
        or "\0" in name
        or (
            not name.isascii()
            and (
                any(0xD800 <= ord(letter) < 0xE000 for letter in name)  # noqa: PLR2004
            )
        )
    ):
        raise exc.ArgumentError(
            f"a lease's name must be 1 to {_NAME_LIMIT} bytes of text without zero "
            f"bytes; this one has {size}"
        )


def check_table(table: Any) -> None:
    """Check the name of a table.

    Args:
        table: What was given.

    Raises:
        ArgumentError: It is not a name, nor a schema's and a name with a dot between.
    """
    part = rf"[A-Za-z_][\w$]{{0,{_TABLE_LIMIT - 1}}}"
    if not isinstance(table, str) or not re.fullmatch(
        rf"{part}(\.{part})?", table, re.ASCII
    ):
        raise exc.ArgumentError(
            f"table is {table!r}, but must be a name of letters, digits and _ (at most "
            f"{_TABLE_LIMIT}), with a schema and a dot before it if wanted"
        )


def check_seconds(name: str, value: Any, minimum: float, *, none: bool = True) -> None:
    """Check a length of time that must be finite.

    Args:
        name: The parameter.
        value: What was given, in seconds.
        minimum: Smallest value allowed.
        none: Whether None may be given.

    Raises:
        ArgumentError: It is no number, not finite, or below `minimum`.
    """
    meaning = f"seconds, {minimum:g} or more" + (", or None" if none else "")
    parameters.seconds(name, value, minimum=minimum, meaning=meaning, none_allowed=none)
    if value is not None and (not isfinite(value) or value > _MOST_S):
        raise exc.ArgumentError(f"{name} is {value!r}, but must be {meaning}")
