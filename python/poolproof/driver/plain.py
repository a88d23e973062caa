"""Single values in the server's text form, both ways, for what stands inside others.

The bridge reads and writes whole columns and parameters of these types by itself; the
bounds of a range and the fields of a row are read and written here.
"""

from __future__ import annotations

import datetime as dt
import decimal
import ipaddress
import re
import uuid
from typing import TYPE_CHECKING, Any

from poolproof.driver.errors import DataError
from poolproof.driver.oids import BY_NAME

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LOADERS", "int_oid", "interval_text", "load_address", "load_network"]

_ZONE = re.compile(r"([+-])(\d\d)(?::(\d\d))?(?::(\d\d))?\Z")
_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)")
_CLOCK = re.compile(r"(\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?")
_UNITS = re.compile(r"([+-]?\d+) (year|mon|day)s?")
_REST = re.compile(r"([+-]?)(\d+):(\d\d):(\d\d)(?:\.(\d{1,6}))?\Z")
_DAYS = {"year": 365, "mon": 30, "day": 1}
_MIDNIGHT = "24:00"


def int_oid(value: int) -> int:
    """Return the smallest of the server's types that a number fits in.

    Args:
        value: The number.

    Source:
        psycopg 3: from a small type the server converts to each larger one by itself.
    """
    for name, bits in (("int2", 15), ("int4", 31), ("int8", 63)):
        if -(1 << bits) <= value < 1 << bits:
            return BY_NAME[name].oid
    return BY_NAME["numeric"].oid


def interval_text(value: dt.timedelta) -> str:
    """Write a length of time so that no setting of the session changes its meaning.

    Args:
        value: The length.
    """
    return f"{value.days} day {value.seconds} second {value.microseconds} microsecond"


def load_address(text: str) -> Any:
    """Read an `inet`: an address, or with a prefix an interface.

    Args:
        text: As the server writes it.
    """
    if "/" in text:
        return ipaddress.ip_interface(text)
    return ipaddress.ip_address(text)


def load_network(text: str) -> Any:
    """Read a `cidr`.

    Args:
        text: As the server writes it.
    """
    return ipaddress.ip_network(text)


def _cannot(kind: str, text: str) -> DataError:
    return DataError(
        f"Python has no {kind} for {text!r}: cast the column to text, or register a "
        "loader for it with poolproof.driver.register_type"
    )


def _date(text: str) -> dt.date:
    found = _DATE.fullmatch(text)
    if found is None:
        raise _cannot("date", text)
    return dt.date(*map(int, found.groups()))


def _clock(text: str, kind: str) -> tuple[int, int, int, int]:
    found = _CLOCK.fullmatch(text)
    if found is None or text.startswith(_MIDNIGHT):
        raise _cannot(kind, text)
    hour, minute, second, fraction = found.groups()
    return int(hour), int(minute), int(second), int((fraction or "").ljust(6, "0"))


def _split_zone(text: str) -> tuple[str, dt.tzinfo | None]:
    found = _ZONE.search(text)
    if found is None:
        return text, None
    sign, *parts = found.groups()
    hours, minutes, seconds = (int(part or 0) for part in parts)
    offset = dt.timedelta(hours=hours, minutes=minutes, seconds=seconds)
    if not offset:
        return text[: found.start()], dt.timezone.utc
    zone = dt.timezone(-offset if sign == "-" else offset)
    return text[: found.start()], zone


def _time(text: str) -> dt.time:
    clock, zone = _split_zone(text)
    return dt.time(*_clock(clock, "time"), tzinfo=zone)


def _timestamp(text: str) -> dt.datetime:
    date, blank, clock = text.partition(" ")
    found = _DATE.fullmatch(date)
    if found is None or not blank:
        raise _cannot("datetime", text)
    clock, zone = _split_zone(clock)
    year, month, day = map(int, found.groups())
    hour, minute, second, fraction = _clock(clock, "datetime")
    return dt.datetime(year, month, day, hour, minute, second, fraction, zone)


def _interval(text: str) -> dt.timedelta:
    days = sum(int(count) * _DAYS[unit] for count, unit in _UNITS.findall(text))
    length = dt.timedelta(days=days)
    if found := _REST.search(text):
        sign, hours, minutes, seconds, fraction = found.groups()
        rest = dt.timedelta(
            hours=int(hours),
            minutes=int(minutes),
            seconds=int(seconds),
            microseconds=int((fraction or "").ljust(6, "0")),
        )
        length += -rest if sign == "-" else rest
    return length


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def _bool(text: str) -> bool:
    return text == "t"


_BY_NAME: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("int2", "int4", "int8", "oid", "xid", "cid"), int),
    **dict.fromkeys(("float4", "float8"), float),
    "bool": _bool,
    "bytea": _bytes,
    "numeric": decimal.Decimal,
    "date": _date,
    "time": _time,
    "timetz": _time,
    "timestamp": _timestamp,
    "timestamptz": _timestamp,
    "interval": _interval,
    "uuid": uuid.UUID,
}
LOADERS = {BY_NAME[name].oid: load for name, load in _BY_NAME.items()}
