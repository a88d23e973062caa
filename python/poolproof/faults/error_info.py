"""What can be read off an exception, whichever driver raised it.

Nothing here decides what an error means: that is the fault table's part. Nothing here
asks the server either; every value is one that the driver already has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from sqlalchemy import exc as sa_exc

from poolproof.drivers.asyncpg import meant
from poolproof.errors import DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

__all__ = [
    "ErrorInfo",
    "Phase",
    "ReadOnly",
    "driver_named",
    "mark",
    "named",
    "phase_of",
    "read",
    "unwrap",
]

Phase = Literal[
    "connect", "ping", "begin", "statement", "commit", "rollback", "unknown"
]
ReadOnly = Literal["imposed", "chosen", "always", "lately", "doubtful", "unknown"]

# Top-level packages of the drivers, with the name that the table uses for each.
_DRIVERS = {
    "psycopg2": "psycopg2",
    "psycopg2cffi": "psycopg2",
    "psycopg": "psycopg",
    "psycopg_binary": "psycopg",
    "psycopg_c": "psycopg",
    "pg8000": "pg8000",
    "asyncpg": "asyncpg",
    "poolproof.driver": "poolproof",
}
# The native one is a package of ours, and its own top.
_NATIVE = "poolproof.driver"
_ASYNCPG_ADAPTER = "sqlalchemy.dialects.postgresql.asyncpg"

# Code that a driver calls to reach the network: an error raised here is the driver's
# own.
_PLUMBING = frozenset(
    {
        *("asyncio", "concurrent", "eventlet", "gevent", "select", "selectors"),
        *("socket", "ssl", "uvloop"),
    }
)

# Names that mark an error class as the driver's (PEP 249; asyncpg has its own).
_DBAPI_NAMES = frozenset({"DatabaseError", "InterfaceError", "PostgresError"})

# SQLAlchemy's functions that an error comes through, and what each was doing.
_STEPS: dict[str, Phase] = {
    "do_ping": "ping",
    "_do_ping_w_event": "ping",
    "connect": "connect",
    "do_begin": "begin",
    "do_begin_twophase": "begin",
    "_begin_impl": "begin",
    "do_commit": "commit",
    "do_commit_twophase": "commit",
    "do_prepare_twophase": "commit",
    "_commit_impl": "commit",
    "_commit_twophase_impl": "commit",
    "_prepare_twophase_impl": "commit",
    "do_rollback": "rollback",
    "_rollback_impl": "rollback",
    "do_execute": "statement",
    "do_execute_no_params": "statement",
    "do_executemany": "statement",
}

# What the dialect's own hooks have seen, on the exception itself: its dict is there
# also where its class refuses attributes.
_MARK = "_poolproof_step"

# A statement that begins with one of these cannot end a transaction by itself.
_PLAIN = frozenset(
    {"select", "insert", "update", "delete", "merge", "values", "table", "with"}
    | {"lock", "copy", "truncate", "savepoint", "release", "fetch", "declare", "notify"}
    | {"set", "show", "create", "alter", "drop", "explain", "analyze", "refresh"}
)
_COMMENTS = re.compile(r"(?:\s+|--[^\n]*(?:\n|$)|/\*.*?\*/)*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An error in plain values.

    Attributes:
        sqlstate: Five characters, or None when there is none.
        message: The message alone, as the driver gives it; may hold user data.
        classes: The exception's class and its bases, each with its module.
        masked: The same of the exceptions that the driver met in this very call and
            replaced by this one.
        driver: ``psycopg2``, ``psycopg``, ``pg8000``, ``asyncpg``, ``poolproof``, or
            empty.
        dbapi: Whether it is an error class of a driver.
        frames: The driver's functions it went through, outermost first.
        by_driver: Whether the driver's own Python code raised it.
        interruption: Whether it is no error but an interruption of the caller, or hides
            one.
        deadline: Whether a deadline of ours shut the connection.
        survived: Whether the server calls it an error that the session survives.
    """

    sqlstate: str | None
    message: str
    classes: list[str]
    masked: list[str]
    driver: str
    dbapi: bool
    frames: list[str]
    by_driver: bool
    interruption: bool
    deadline: bool
    survived: bool


def unwrap(error: BaseException) -> BaseException:
    """Return the driver's exception inside SQLAlchemy's, or the exception itself."""
    if (
        isinstance(error, sa_exc.StatementError)
        and not isinstance(error, sa_exc.DontWrapMixin)  # as ConnectionForked is
        and error.orig is not None
    ):
        return error.orig
    return error


def read(error: BaseException, driver: str = "") -> ErrorInfo:
    """Read what an exception says about itself.

    Args:
        error: An exception of a driver or of anything else, not wrapped.
        driver: The driver's name as its dialect gives it, when it is known.

    Returns:
        What was read. An exception that refuses to be read (its ``str`` raises) has an
        empty message.
    """
    said = error
    if type(error).__module__ == _ASYNCPG_ADAPTER and error.__cause__ is not None:
        # The adapter's own text begins with the class's name; the cause's does not.
        said = error.__cause__
    said = meant(said)
    kind: type = type(said)
    classes, dbapi = _ancestry(kind)
    origins = [f"{module}:{name}" for module, name, _ in _trail(error)]
    frames = [origin for origin in origins if _package(origin) in _DRIVERS]
    known = driver.partition("_")[0] or _driver_of(classes) or _driver_of(frames)
    hidden = list(_masked(error))
    return ErrorInfo(
        sqlstate=_sqlstate(said) if dbapi else None,
        message=_message(said),
        classes=[*classes],
        masked=[named(c) for one in hidden for c in type(one).__mro__],
        driver=driver_named(known),
        dbapi=dbapi,
        frames=frames,
        by_driver=_raised_by_driver(origins),
        interruption=not all(isinstance(one, Exception) for one in (error, *hidden)),
        deadline=_met_deadline(error),
        survived=dbapi and _severity(said) == "ERROR",
    )


@lru_cache(maxsize=256)
def _ancestry(kind: type) -> tuple[tuple[str, ...], bool]:
    """Return the names of a class and its bases, and whether it is a driver's error."""
    bases = kind.__mro__
    return tuple(map(named, bases)), any(c.__name__ in _DBAPI_NAMES for c in bases)


def named(kind: type) -> str:
    """Return the name that the table knows a class by: with its module."""
    name = f"{kind.__module__}.{kind.__qualname__}"
    # Ours are known by the name they are imported by.
    return name.replace("poolproof.errors.", "poolproof.")


def driver_named(name: str) -> str:
    """Return the table's name of a driver, which its packages share."""
    return _DRIVERS.get(name, name)


def mark(error: BaseException, step: Phase) -> None:
    """Keep what was being done when an error came; the first to say so is believed.

    Args:
        error: What a verb of a dialect has raised.
        step: What that verb does.
    """
    vars(error).setdefault(_MARK, step)


def phase_of(
    error: BaseException, statement: str | None, *, autocommit: bool | None
) -> Phase:
    """Say what was being done when the error came.

    Where no hook of ours has seen it, the traceback tells: it lacks what was caught and
    raised as something else.

    Args:
        error: The driver's exception, with its traceback.
        statement: The statement that was running, if one was.
        autocommit: Whether each statement commits by itself; None if not known.

    Returns:
        ``"unknown"`` whenever the error may have struck a commit.
    """
    phase: Phase | None = vars(error).get(_MARK)
    if phase is None:
        phase = "unknown"
        for module, name, _ in _trail(error):
            if module.startswith(("sqlalchemy.engine.", "sqlalchemy.dialects.")):
                phase = _STEPS.get(name, phase)
    if phase == "statement":
        text = _COMMENTS.sub("", statement or "", count=1).rstrip("; \t\n")
        words = text.split(None, 1)
        # Behind a semicolon there may be a commit; or it is the application's own.
        plain = bool(words) and words[0].lower() in _PLAIN and ";" not in text
        return phase if plain and autocommit is False else "unknown"
    return phase


def _trail(error: BaseException) -> Iterator[tuple[str, str, FrameType]]:
    """Walk the traceback, outermost first, as module, function and frame."""
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        module = frame.f_globals.get("__name__")
        yield str(module), frame.f_code.co_name, frame
        traceback = traceback.tb_next


def _raised_by_driver(origins: list[str]) -> bool:
    for origin in reversed(origins):
        package = _package(origin)
        if package not in _PLUMBING:
            return package in _DRIVERS
    return False


def _package(name: str) -> str:
    module = name.partition(":")[0]
    if module == _NATIVE or module.startswith(f"{_NATIVE}."):
        return _NATIVE
    return module.partition(".")[0]


def _driver_of(names: Iterable[str]) -> str:
    for name in names:
        if _package(name) in _DRIVERS:
            return _package(name)
    return ""


def _masked(error: BaseException) -> Iterator[BaseException]:
    """Walk the exceptions that the driver replaced inside the call that failed.

    Those that the application has handled are not among them: a traceback begins where
    the exception was caught, and theirs does so outside of the driver.
    """
    seen = {id(error)}
    found = error.__context__
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        module = next((module for module, _, _ in _trail(found)), "")
        if _package(module) in _DRIVERS:
            yield found
        found = found.__context__


def _met_deadline(error: BaseException) -> bool:
    """Whether the error, or what it names as its cause, is a deadline of ours."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        if isinstance(found, DeadlineExceeded):
            return True
        seen.add(id(found))
        found = found.__cause__
    return False


def _severity(error: BaseException) -> str | None:
    """Return how bad the server called it, in English, if it says so."""
    diagnostics = getattr(error, "diag", None)  # psycopg2, psycopg
    fields = _fields(error)
    if fields is not None:
        return _word(fields.get("V"))
    return _word(
        getattr(error, "severity_en", None)  # asyncpg
        or getattr(diagnostics, "severity_nonlocalized", None)
    )


def _word(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _sqlstate(error: BaseException) -> str | None:
    fields = _fields(error)
    value = (
        getattr(error, "pgcode", None)
        or getattr(error, "sqlstate", None)
        or (fields.get("C") if fields is not None else None)
    )
    if isinstance(value, str) and len(value) == 5 and value.isascii():  # noqa: PLR2004 - a SQLSTATE is five characters
        return value
    return None


def _fields(error: BaseException) -> dict[str, object] | None:
    """Return the fields of a server's error as pg8000 keeps them."""
    first = error.args[0] if error.args else None
    return first if isinstance(first, dict) else None


def _message(error: BaseException) -> str:
    fields = _fields(error)
    try:
        text = str(error if fields is None else fields.get("M", ""))
    except Exception:  # noqa: BLE001 - any class may have any __str__
        return ""
    # A half of a surrogate pair, left by a driver that decodes leniently.
    return text.encode("utf-8", "replace").decode()
