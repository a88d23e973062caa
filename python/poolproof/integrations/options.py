"""What a pool is asked to do by an application's configuration: ``POOLPROOF_*``."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final, NoReturn

from sqlalchemy import exc

from poolproof.pool import knobs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["PREFIX", "Chosen", "blamed", "read"]

PREFIX: Final = "POOLPROOF_"

# Of the web application rather than the pool.
_OF_APP = ("answer_503", "retry_after")
_NAMES = (*knobs.KNOBS, *_OF_APP)
_KEYS = {f"{PREFIX}{name.upper()}": name for name in _NAMES}
# What else of poolproof is in the environment.
_OTHERS = frozenset({"POOLPROOF_URL", "POOLPROOF_DRILL_URL", "POOLPROOF_METRICS_DIR"})
_TESTS = "POOLPROOF_TEST_"


@dataclasses.dataclass(frozen=True, slots=True)
class Chosen:
    """What was chosen, every value checked.

    Attributes:
        pool: Arguments of `poolproof.Pool`; only those that somebody gave.
        places: Where each was given, by its name for `create_engine`.
        unknown: A sentence for each variable of the environment that has our prefix and
            is not known.
        answer_503: Whether an exhausted pool is answered with 503.
        retry_after: What 503 says about when to come again, in seconds.
    """

    pool: dict[str, Any]
    places: dict[str, str]
    unknown: tuple[str, ...] = ()
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
            An empty text is no value.
        environment: As `os.environ`. Numbers as such, booleans as 1, true, yes, on, 0,
            false, no, off; ``none`` for no bound; ``5,2,3`` for keep-alives. An empty
            variable is none.

    Returns:
        The options.

    Raises:
        TypeError: An argument that does not exist.
        ArgumentError: A key of the configuration that does not exist, or a value of the
            wrong type or outside its range; it names the key and where it stands.
    """
    found: dict[str, tuple[str, Any]] = {}
    for key, name in _KEYS.items():
        if environment.get(key, "").strip():
            value = knobs.parse(
                name, environment[key], boolean=knobs.BOOLEAN | {"answer_503"}
            )
            found[name] = (f"{key} (environment)", value)
    for key, value in config.items():
        if key.startswith(PREFIX):
            if key not in _KEYS:
                msg = f"{key} is not known; {knobs.near(key, _KEYS)}"
                raise exc.ArgumentError(msg)
            if value != "":
                found[_KEYS[key]] = (f"{key} (configuration)", value)
    own_names = {own: name for name, own in knobs.KNOBS.items()}
    for given, value in arguments.items():
        name = own_names.get(given, given)
        if name not in _NAMES:
            hint = knobs.near(given, _NAMES)
            msg = f"init_app has no argument {given!r}; {hint}"
            raise TypeError(msg)
        found[name] = (f"{given} (argument of init_app)", value)
    for name, (place, value) in found.items():
        _check(name, place, value)
    chosen = {name: found[name] for name in knobs.KNOBS if name in found}
    return Chosen(
        pool={knobs.KNOBS[name]: value for name, (_place, value) in chosen.items()},
        places={name: place for name, (place, _value) in chosen.items()},
        unknown=tuple(_unknown(environment)),
        **{name: found[name][1] for name in _OF_APP if name in found},
    )


def blamed(error: exc.ArgumentError, places: Mapping[str, str]) -> str:
    """Say which keys an error is about, of values that do not go together.

    Args:
        error: What the pool has raised.
        places: Where its options were given, as `Chosen` has them.

    Returns:
        A sentence; the error's own where it names none of them.
    """
    text = str(error)
    keys = [
        place
        for name, place in places.items()
        if knobs.KNOBS[name] in text or name in text
    ]
    return f"{' and '.join(keys)} refused: {text}" if keys else text


def _unknown(environment: Mapping[str, str]) -> Iterator[str]:
    for key in sorted(environment):
        ours = key.startswith(PREFIX) and not key.startswith(_TESTS)
        if ours and key not in _KEYS and key not in _OTHERS:
            yield f"{key} (environment) is not known; {knobs.near(key, _KEYS)}"


def _check(name: str, place: str, value: Any) -> None:
    """Check one value by itself; those that must fit others are checked by the pool."""
    if name == "answer_503":
        if not isinstance(value, bool):
            _refuse(place, value, "True or False")
    elif name == "retry_after":
        if type(value) is not int or value < 1:
            _refuse(place, value, "a whole number of seconds, 1 or more")
    else:
        try:
            knobs.check(name, value)
        except exc.ArgumentError as error:
            msg = f"{place} is refused: {error}"
            raise exc.ArgumentError(msg) from None


def _refuse(place: str, value: Any, meaning: str) -> NoReturn:
    msg = f"{place} is refused: it is {value!r}, but must be {meaning}"
    raise exc.ArgumentError(msg)
