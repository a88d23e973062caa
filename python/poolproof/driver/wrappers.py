"""PEP 249's type objects and constructors, and what marks a value as JSON."""

from __future__ import annotations

import datetime as dt
import time
from typing import TYPE_CHECKING, Any

from poolproof.driver.oids import TYPES

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "BINARY",
    "DATETIME",
    "NUMBER",
    "ROWID",
    "STRING",
    "Binary",
    "Date",
    "DateFromTicks",
    "Json",
    "Jsonb",
    "Time",
    "TimeFromTicks",
    "Timestamp",
    "TimestampFromTicks",
    "TypeObject",
]


class TypeObject:
    """Some types of the server's: equal to the number of each of them.

    Attributes:
        name: PEP 249's name.
        oids: The numbers.
    """

    __slots__ = ("name", "oids")

    def __init__(self, name: str, *types: str) -> None:
        """Collect the types.

        Args:
            name: PEP 249's name.
            types: Their names.
        """
        self.name = name
        self.oids = frozenset(one.oid for one in TYPES if one.name in types)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TypeObject):
            return self.oids == other.oids
        return other in self.oids

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.oids)

    def __repr__(self) -> str:
        return f"poolproof.driver.{self.name}"


STRING = TypeObject("STRING", "char", "name", "text", "bpchar", "varchar", "xml")
BINARY = TypeObject("BINARY", "bytea")
NUMBER = TypeObject("NUMBER", "int2", "int4", "int8", "float4", "float8", "numeric")
DATETIME = TypeObject(
    "DATETIME", "date", "time", "timetz", "timestamp", "timestamptz", "interval"
)
ROWID = TypeObject("ROWID", "oid")

Date = dt.date
Time = dt.time
Timestamp = dt.datetime
Binary = bytes


def DateFromTicks(ticks: float) -> dt.date:  # noqa: N802 - PEP 249's name
    """Make a date of the seconds since the epoch, in local time.

    Args:
        ticks: As `time.time()` returns them.
    """
    return Date(*time.localtime(ticks)[:3])


def TimeFromTicks(ticks: float) -> dt.time:  # noqa: N802 - PEP 249's name
    """Make a time of day of the seconds since the epoch, in local time.

    Args:
        ticks: As `time.time()` returns them.
    """
    return Time(*time.localtime(ticks)[3:6])


def TimestampFromTicks(ticks: float) -> dt.datetime:  # noqa: N802 - PEP 249's
    """Make a timestamp of the seconds since the epoch, in local time.

    Args:
        ticks: As `time.time()` returns them.
    """
    return Timestamp(*time.localtime(ticks)[:6])


class Json:
    """A value to be sent as ``json``.

    Attributes:
        value: The value.
        dumps: Makes its text; None for the connection's, which is `json.dumps`.
    """

    __slots__ = ("dumps", "value")

    def __init__(
        self, value: Any, dumps: Callable[[Any], str | bytes] | None = None
    ) -> None:
        """Mark the value; the arguments are the attributes."""
        self.value = value
        self.dumps = dumps

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value!r})"


class Jsonb(Json):
    """A value to be sent as ``jsonb``."""

    __slots__ = ()
