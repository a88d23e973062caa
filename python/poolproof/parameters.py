"""The pool's parameters, checked when the pool is made.

A wrong value that is let in here would show much later and far away: a negative size
as a wait without end, the string "false" from a configuration file as true.
"""

from __future__ import annotations

import math
import operator
from typing import Any, SupportsIndex

from sqlalchemy import exc

__all__ = ["boolean", "check_base", "integer", "seconds"]

# What create_engine calls the parameter, where that differs.
_ENGINE_NAMES = {
    "timeout": "pool_timeout",
    "recycle": "pool_recycle",
    "pre_ping": "pool_pre_ping",
    "use_lifo": "pool_use_lifo",
    "reset_on_return": "pool_reset_on_return",
}


def _wrong(name: str, value: object, allowed: str) -> exc.ArgumentError:
    engine_name = _ENGINE_NAMES.get(name)
    also = f" ({engine_name} of create_engine)" if engine_name else ""
    hint = (
        "; values from a configuration file are strings: convert them, or use "
        "engine_from_config"
        if isinstance(value, str)
        else ""
    )
    return exc.ArgumentError(f"{name}{also} is {value!r}, but must be {allowed}{hint}")


def integer(name: str, value: Any, *, minimum: int, meaning: str) -> int:
    """Check a whole number.

    Args:
        name: The parameter.
        value: What was given.
        minimum: Smallest value allowed.
        meaning: What is allowed, to end the sentence "… must be".

    Returns:
        The number.

    Raises:
        ArgumentError: Not a whole number (a bool is none), or below `minimum`.
    """
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise _wrong(name, value, meaning)
    number = operator.index(value)
    if number < minimum:
        raise _wrong(name, value, meaning)
    return number


def seconds(
    name: str, value: Any, *, minimum: float, meaning: str, none_allowed: bool
) -> float | None:
    """Check a length of time.

    Args:
        name: The parameter.
        value: What was given, in seconds.
        minimum: Smallest value allowed.
        meaning: What is allowed, to end the sentence "… must be".
        none_allowed: Whether None may be given.

    Returns:
        The value as it was given.

    Raises:
        ArgumentError: Not a number (a bool is none), NaN, or below `minimum`.
    """
    if value is None and none_allowed:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong(name, value, meaning)
    if math.isnan(value) or value < minimum:
        raise _wrong(name, value, meaning)
    return value


def boolean(name: str, value: Any) -> bool:
    """Check a switch.

    Args:
        name: The parameter.
        value: What was given.

    Returns:
        The value.

    Raises:
        ArgumentError: Neither True nor False.
    """
    if not isinstance(value, bool):
        raise _wrong(name, value, "True or False")
    return value


def check_base(kw: dict[str, Any]) -> None:
    """Check those parameters of SQLAlchemy's base pool that it takes as they come.

    Args:
        kw: Keyword arguments of the pool.

    Raises:
        ArgumentError: `recycle` or `pre_ping` is not what it must be.
    """
    if "recycle" in kw:
        seconds(
            "recycle",
            kw["recycle"],
            minimum=-1,
            meaning="seconds, -1 (never) or more",
            none_allowed=False,
        )
    if "pre_ping" in kw:
        boolean("pre_ping", kw["pre_ping"])
