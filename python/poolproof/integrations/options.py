"""What a pool is asked to do by an application's configuration: ``POOLPROOF_*``."""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING, Any, Final, NoReturn

from sqlalchemy import exc

from poolproof.pool import Pool
from poolproof.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["PREFIX", "Chosen", "read"]

PREFIX: Final = "POOLPROOF_"

# What create_engine calls in another way than the pool does.
_ENGINES_NAMES = {
    "pool_timeout": "timeout",
    "pool_recycle": "recycle",
    "pool_use_lifo": "use_lifo",
    "pool_pre_ping": "pre_ping",
}
_SETTINGS = tuple(field.name for field in dataclasses.fields(Settings))
_OF_POOL = {
    "pool_size": "pool_size",
    "max_overflow": "max_overflow",
    **_ENGINES_NAMES,
    **{name: name for name in _SETTINGS if name != "pre_ping"},
}
# Of the web application rather than the pool.
_OF_APP = ("answer_503", "retry_after")
_BOOLEAN = frozenset({"pool_use_lifo", "pool_pre_ping", "answer_503"})
_ON = frozenset({"1", "true", "yes", "on"})
_OFF = frozenset({"0", "false", "no", "off"})
# Other variables of poolproof with the same prefix may stand in the environment;
# in an application's configuration an unknown key is a slip.
_KEYS = {f"{PREFIX}{name.upper()}": name for name in (*_OF_POOL, *_OF_APP)}


@dataclasses.dataclass(frozen=True, slots=True)
class Chosen:
    """What was chosen, every value checked.

    Attributes:
        pool: Arguments of `poolproof.Pool`; only those that somebody gave.
        answer_503: Whether an exhausted pool is answered with 503.
        retry_after: What 503 says about when to come again, in seconds.
    """

    pool: dict[str, Any]
    answer_503: bool = False
    retry_after: int = 1


def read(
    arguments: Mapping[str, Any],
    config: Mapping[str, Any],
    environment: Mapping[str, str],
) -> Chosen:
    """Read the options.

    An argument goes before the configuration, and that before the environment.

    Args:
        arguments: By the names of `create_engine`, or by those of `poolproof.Pool`.
        config: An application's configuration, with keys ``POOLPROOF_*`` among others.
        environment: As `os.environ`. Numbers as such, booleans as 1, true, yes, on, 0,
            false, no, off; ``none`` for no bound; ``5,2,3`` for keep-alives.

    Returns:
        The options.

    Raises:
        TypeError: An argument that does not exist.
        ArgumentError: A key of the configuration that does not exist, or a value of the
            wrong type or outside its range; it names the key and where it stands.
    """
    found: dict[str, tuple[str, Any]] = {}
    for key, name in _KEYS.items():
        if key in environment:
            found[name] = (
                f"{key} (environment)",
                _parse(name, environment[key].strip()),
            )
    for key, value in config.items():
        if key.startswith(PREFIX):
            if key not in _KEYS:
                _refuse_key(key)
            found[_KEYS[key]] = (f"{key} (configuration)", value)
    own_names = {own: name for name, own in _ENGINES_NAMES.items()}
    for given, value in arguments.items():
        name = own_names.get(given, given)
        if name not in _OF_POOL and name not in _OF_APP:
            there_are = _list((*_OF_POOL, *_OF_APP))
            msg = f"init_app has no argument {given!r}; there are: {there_are}"
            raise TypeError(msg)
        found[name] = (f"the argument {given}", value)
    for name, (place, value) in found.items():
        _check(name, place, value)
    return Chosen(
        pool={_OF_POOL[name]: found[name][1] for name in _OF_POOL if name in found},
        **{name: found[name][1] for name in _OF_APP if name in found},
    )


def _parse(name: str, words: str) -> Any:
    """Make a value of a variable's text; a text that is none stays, and is refused."""
    word = words.lower()
    if name in _BOOLEAN and word in _ON | _OFF:
        return word in _ON
    if word == "none":
        return None
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


def _check(name: str, place: str, value: Any) -> None:
    """Check one value by itself; those that must fit others are checked by the pool."""
    if name == "answer_503":
        if not isinstance(value, bool):
            _refuse(place, value, "True or False")
        return
    if name == "retry_after":
        if type(value) is not int or value < 1:
            _refuse(place, value, "a whole number of seconds, 1 or more")
        return
    own = _OF_POOL[name]
    try:
        if own in _SETTINGS:
            Settings(**{**_defaults(), own: value})
        else:
            Pool(_never, **{own: value})
    except exc.ArgumentError as error:
        msg = f"{place} is refused: {error}"
        raise exc.ArgumentError(msg) from None


def _defaults() -> dict[str, Any]:
    parameters = inspect.signature(Pool.__init__).parameters
    return {name: parameters[name].default for name in _SETTINGS}


def _never() -> NoReturn:
    raise AssertionError


def _refuse(place: str, value: Any, meaning: str) -> NoReturn:
    msg = f"{place} is refused: it is {value!r}, but must be {meaning}"
    raise exc.ArgumentError(msg)


def _refuse_key(key: str) -> NoReturn:
    msg = f"{key} is not known; there are: {_list(_KEYS)}"
    raise exc.ArgumentError(msg)


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
