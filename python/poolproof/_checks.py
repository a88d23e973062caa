"""The pool's parameters, checked when the pool is made.

A wrong value that is let in here would show much later and far away: a negative size
as a wait without end, the string "false" from a configuration file as true.
"""

from __future__ import annotations

import inspect
import operator
import re
from typing import Any, SupportsIndex

from sqlalchemy import exc, pool
from sqlalchemy.engine import Dialect

from poolproof._sqlalchemy import arguments_of

__all__ = [
    "a_kind",
    "boolean",
    "check_base",
    "choice",
    "has_second_at",
    "integer",
    "no_coroutine_function",
    "refuse_strays",
    "seconds",
]

_USER_AND_PASSWORD = re.compile("[^:/@]*(?::[^@]*)?@")
_AS_SQLALCHEMY_READS = re.compile("([^:/]*)(?::[^@]*)?@")
_RESETS = (pool.reset_rollback, pool.reset_commit, pool.reset_none)

# What create_engine calls the parameter, where that differs.
_ENGINE_NAMES = {
    "timeout": "pool_timeout",
    "recycle": "pool_recycle",
    "pre_ping": "pool_pre_ping",
    "use_lifo": "pool_use_lifo",
    "reset_on_return": "pool_reset_on_return",
    "echo": "echo_pool",
}


_NUMBER_HINT = (
    "; values from a configuration file are strings: convert them, or use "
    "engine_from_config"
)
# What engine_from_config makes numbers of.
_CONVERTED = frozenset({"pool_size", "max_overflow", "timeout", "recycle"})
# engine_from_config leaves pool_pre_ping and pool_use_lifo as they are.
_SWITCH_HINT = "; values from a configuration file are strings: convert them"


def _wrong(
    name: str, value: object, allowed: str, of_strings: str = ""
) -> exc.ArgumentError:
    hint = of_strings if isinstance(value, str) else ""
    engine_name = _ENGINE_NAMES.get(name)
    also = f" ({engine_name} of create_engine)" if engine_name else ""
    return exc.ArgumentError(f"{name}{also} is {value!r}, but must be {allowed}{hint}")


def _hint(name: str) -> str:
    return _NUMBER_HINT if name in _CONVERTED else _SWITCH_HINT


def a_kind(value: object) -> str:
    """Name what a value is: ``a str``, ``an int``.

    Args:
        value: Anything.
    """
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeiouAEIOU" else f"a {name}"


def integer(name: str, value: Any, *, minimum: int | None, meaning: str) -> int:
    """Check a whole number.

    Args:
        name: The parameter.
        value: What was given.
        minimum: Smallest value allowed; None for no bound.
        meaning: What is allowed, to end the sentence "… must be".

    Returns:
        The number.

    Raises:
        ArgumentError: Not a whole number (a bool is none), or below `minimum`.
    """
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise _wrong(name, value, meaning, _hint(name))
    number = operator.index(value)
    if minimum is not None and number < minimum:
        raise _wrong(name, value, meaning, _NUMBER_HINT)
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
        raise _wrong(name, value, meaning, _hint(name))
    if value != value or value < minimum:  # noqa: PLR0124 - only NaN differs from itself
        raise _wrong(name, value, meaning)
    try:
        float(value)
    except OverflowError:
        meaning += "; for no bound at all take None or infinity"
        raise _wrong(name, value, meaning) from None
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
        raise _wrong(name, value, "True or False", _SWITCH_HINT)
    return value


def choice(name: str, value: Any, *, allowed: tuple[object, ...], meaning: str) -> Any:
    """Check one of a few values.

    Args:
        name: The parameter.
        value: What was given.
        allowed: Every value that is taken.
        meaning: What is allowed, to end the sentence "… must be".

    Returns:
        The value.

    Raises:
        ArgumentError: None of the allowed values.
    """
    # 1 equals True and is not meant here.
    if not any(value == one and type(value) is type(one) for one in allowed):
        raise _wrong(name, value, meaning, _SWITCH_HINT if True in allowed else "")
    return value


def check_base(kw: dict[str, Any], *, is_asyncio: bool) -> None:
    """Check those parameters of SQLAlchemy's base pool that it takes as they come.

    Args:
        kw: Keyword arguments of the pool.
        is_asyncio: Whether the pool is for async engines.

    Raises:
        ArgumentError: `recycle`, `echo` or `reset_on_return` is not what it
            must be, or the engine is of the other kind.
    """
    _refuse_other_kind(is_asyncio, kw.get("dialect"))
    if "recycle" in kw:
        seconds(
            "recycle",
            kw["recycle"],
            minimum=-1,
            meaning="seconds, -1 (never) or more",
            none_allowed=False,
        )
    if "echo" in kw:
        choice(
            "echo",
            kw["echo"],
            allowed=(None, True, False, "debug"),
            meaning='True, False, None or "debug"',
        )
    if "reset_on_return" in kw:
        choice(
            "reset_on_return",
            kw["reset_on_return"],
            # The words that SQLAlchemy takes, and what recreate() hands on.
            allowed=(
                *("rollback", "commit", "discard_all"),
                *(None, True, False, "none", *_RESETS),
            ),
            meaning='"rollback" (or True), "commit", "discard_all" or None (or False)',
        )


def refuse_strays(of: pool.Pool) -> None:
    """Refuse a knob in a URL that nobody has read: the driver would get it.

    Args:
        of: The pool of an engine.

    Raises:
        ArgumentError: There is one; the message says what to do.
    """
    _positional, told = arguments_of(of) or ((), {})
    strays = [name for name in told if name.startswith("poolproof_")]
    if strays:
        name = strays[0].removeprefix("poolproof_")
        msg = (
            f"{', '.join(strays)} in the URL: nobody reads that, and the driver would "
            "get it. Add plugin=poolproof to the URL (?plugin=poolproof&"
            f"{strays[0]}=...), or give {name}=... to create_engine"
        )
        raise exc.ArgumentError(msg)


def _refuse_other_kind(is_asyncio: bool, dialect: object) -> None:
    """Refuse a pool for async engines in a sync one, and the other way round.

    Args:
        is_asyncio: Whether the pool is for async engines.
        dialect: The engine's dialect, if the pool is made for one.

    Raises:
        ArgumentError: It is of the other kind; the message names the pool for it.
    """
    if isinstance(dialect, Dialect) and bool(dialect.is_async) is not is_asyncio:
        own, other, kind = "Pool", "AsyncPool", "an async"
        if is_asyncio:
            own, other, kind = "AsyncPool", "Pool", "a sync"
        msg = (
            f"poolproof.{own} cannot be used with {kind} engine "
            f"({dialect.name}+{dialect.driver}): give poolclass=poolproof.{other}"
        )
        raise exc.ArgumentError(msg)


def no_coroutine_function(name: str, value: object) -> None:
    """Check that a function which may be given is a plain one.

    Args:
        name: The parameter, for the message.
        value: What was given.

    Raises:
        ArgumentError: It is a coroutine function.
    """
    if inspect.iscoroutinefunction(value):
        raise exc.ArgumentError(
            f"{name} is a coroutine function, which no thread can wait for: give a "
            "plain one"
        )


def has_second_at(url: str) -> bool:
    """Tell whether a URL has an @ that is not written as %40, in a password say.

    What follows the first one is then taken for the host, and must not be shown.

    Args:
        url: A URL as somebody wrote it.
    """
    rest = url.partition("://")[2]
    # As SQLAlchemy reads it: a password may have a ? in it, and ends at the first @.
    named = _USER_AND_PASSWORD.match(rest)
    misread = _AS_SQLALCHEMY_READS.match(rest)
    if misread is not None and "@" in misread[1]:
        return True  # a host and its port are taken for a user and a password
    before, _, query = rest[named.end() if named else 0 :].partition("?")
    if "@" in before:
        return named is not None or before.count("@") > 1
    return any("@" in pair.partition("=")[0] for pair in query.split("&"))
