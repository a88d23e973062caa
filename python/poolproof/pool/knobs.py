"""The pool's knobs as text: in a URL, or in the environment.

A knob has the name that `create_engine` gives it: ``poolproof_pool_size`` in a URL is
``POOLPROOF_POOL_SIZE`` in the environment, and `pool_size` of the pool.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from typing import TYPE_CHECKING, Any, Final, NoReturn

from sqlalchemy import exc

from poolproof.pool.pool import Pool
from poolproof.pool.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["BOOLEAN", "KNOBS", "PREFIX", "check", "near", "of_url", "parse"]

PREFIX: Final = "poolproof_"

_SETTINGS = tuple(field.name for field in dataclasses.fields(Settings))
# By the names of `create_engine`, what the pool calls them.
KNOBS: Final[dict[str, str]] = {
    "pool_size": "pool_size",
    "max_overflow": "max_overflow",
    "pool_timeout": "timeout",
    "pool_recycle": "recycle",
    "pool_use_lifo": "use_lifo",
    "pool_pre_ping": "pre_ping",
    "pool_reset_on_return": "reset_on_return",
    "echo_pool": "echo",
    "pool_logging_name": "logging_name",
    **{name: name for name in _SETTINGS if name != "pre_ping"},
}
BOOLEAN: Final = frozenset(
    {"pool_use_lifo", "pool_pre_ping", "echo_pool", "end_stranded_backends"}
)
_TEXT = frozenset({"pool_logging_name", "control_dsn", "host_budget"})
_ON = frozenset({"1", "true", "yes", "on"})
_OFF = frozenset({"0", "false", "no", "off"})


def parse(name: str, words: str, *, boolean: frozenset[str] = BOOLEAN) -> Any:
    """Make a value of a knob's text.

    Args:
        name: The knob.
        words: Numbers as such; 1, true, yes, on, 0, false, no, off where the knob is a
            switch; ``none`` for no bound; ``5,2,3`` for keep-alives.
        boolean: The switches.

    Returns:
        The value, not checked yet; a text that is none of those as it is.
    """
    words = words.strip()
    word = words.lower()
    if word == "none":
        return None
    if name in _TEXT:
        return words
    if name in boolean and word in _ON | _OFF:
        return word in _ON
    if "," in words:
        return tuple(_number(part.strip()) for part in words.split(","))
    return _number(words)


def _number(words: str) -> Any:
    for kind in (int, float):
        try:
            return kind(words)
        except ValueError:
            continue
    return words


def check(name: str, value: Any) -> None:
    """Check the value of one knob by itself.

    Args:
        name: The knob.
        value: Its value.

    Raises:
        ArgumentError: It is of the wrong type or outside its range.
    """
    own = KNOBS[name]
    if own in _SETTINGS:
        Settings(**{**_defaults(), own: value})
    else:
        Pool(_never, **{own: value})


def _defaults() -> dict[str, Any]:
    parameters = inspect.signature(Pool.__init__).parameters
    return {name: parameters[name].default for name in _SETTINGS}


def _never() -> NoReturn:
    raise AssertionError


def near(name: str, known: Iterable[str]) -> str:
    """Say which name may have been meant.

    Args:
        name: A name that is not known.
        known: Those that are.

    Returns:
        The end of a sentence that has named it: what was meant, or all that there are.
    """
    known = sorted(known)
    by_letters = {_letters(one): one for one in known}
    meant = difflib.get_close_matches(_letters(name), by_letters, n=1, cutoff=0.7)
    if meant:
        return f"did you mean {by_letters[meant[0]]}?"
    return f"there are: {', '.join(known)}"


def _letters(name: str) -> str:
    """Write a name so that only its letters count: poolSize, POOL_SIZE, pool-size."""
    return "".join(filter(str.isalnum, name)).lower()


def of_url(query: Mapping[str, str | tuple[str, ...]]) -> dict[str, Any]:
    """Read the knobs of a URL.

    Args:
        query: The URL's parameters; those of others are passed over.

    Returns:
        The values by the knobs' names, each checked by itself. A parameter without a
        value is none.

    Raises:
        ArgumentError: A parameter with our prefix is not known, stands there twice, or
            has a wrong value; it names the parameter.
    """
    found = {}
    for key, words in query.items():
        if not key.startswith(PREFIX):
            continue
        name = key.removeprefix(PREFIX)
        if name not in KNOBS:
            hint = near(key, (PREFIX + one for one in KNOBS))
            msg = f"{key} in the URL is not known; {hint}"
            raise exc.ArgumentError(msg)
        if not isinstance(words, str):
            msg = f"{key} stands in the URL {len(words)} times"
            raise exc.ArgumentError(msg)
        if not words.strip():
            continue
        value = parse(name, words)
        try:
            check(name, value)
        except exc.ArgumentError as error:
            msg = f"{key} in the URL is refused: {error}"
            raise exc.ArgumentError(msg) from None
        found[name] = value
    return found
