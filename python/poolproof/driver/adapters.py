"""How values travel: Python's to parameters, the server's texts to values.

The bridge does the common types by itself, in both directions. Here is the rest, and
what users register.
"""

from __future__ import annotations

import datetime as dt
import decimal
import ipaddress
import json
import uuid
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

from poolproof import _native
from poolproof.driver import plain
from poolproof.driver.arrays import array_text, parse_array, parse_row, row_text
from poolproof.driver.errors import DataError, ProgrammingError
from poolproof.driver.oids import ARRAYS, BY_NAME
from poolproof.driver.ranges import (
    MultiRange,
    Range,
    multirange_text,
    parse_multirange,
    parse_range,
    range_text,
)
from poolproof.driver.wrappers import Json, Jsonb

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Adapters", "Dump", "Load", "adapters"]

Load = Callable[[str], Any]
Dump = Callable[[Any], "tuple[int, str | bytes]"]

_UNKNOWN = 0  # the server decides by what stands around the parameter
_OID = {name: one.oid for name, one in BY_NAME.items()}
_INTEGERS = [_OID[name] for name in ("int2", "int4", "int8", "numeric")]
_RANGES = {
    "int4range": "int4",
    "int8range": "int8",
    "numrange": "numeric",
    "daterange": "date",
    "tsrange": "timestamp",
    "tstzrange": "timestamptz",
}
# The range of each type that a bound can have. Not of whole numbers: the server turns
# no int4range into an int8range, but it reads a text as either.
_RANGE_OF = {
    _OID[bound]: _OID[name]
    for name, bound in _RANGES.items()
    if not bound.startswith("int")
}
# Whose values are texts; the bridge knows their arrays as little as themselves.
_TEXTS = (
    *("xml", "point", "lseg", "path", "box", "polygon", "line", "circle", "money"),
    *("macaddr", "macaddr8", "bit", "varbit", "refcursor", "regclass", "regtype"),
    *("pg_lsn", "tsvector", "tsquery", "jsonpath", "tid", "xid8"),
    *("int2vector", "oidvector"),
)
_MULTIRANGE_OF = {
    _OID[name]: _OID[name.replace("range", "multirange")] for name in _RANGES
}


class Adapters:
    """The ways of one connection, or of all that have none of their own.

    Attributes:
        loaders: For the bridge: what makes a value of a text, by the type's number.
        dumpers: What users have registered to make a type's number and a text of a
            value, by its class.
        array_oids: The numbers of the arrays of registered types, by those of the
            types.
        json_dumps: Makes the text of what `Json` and `Jsonb` hold.
    """

    def __init__(self, other: Adapters | None = None) -> None:
        """Begin as *other*, which later changes do not reach.

        Args:
            other: Whose ways they are at first; None for the built-in ones.
        """
        self.loaders: dict[int, Load] = {}
        self.dumpers: dict[type, Dump] = {}
        self.array_oids: dict[int, int] = {}
        self.json_dumps: Callable[[Any], str | bytes] = json.dumps
        if other is None:
            self._load_built_in()
        else:
            self.loaders.update(other.loaders)
            self.dumpers.update(other.dumpers)
            self.array_oids.update(other.array_oids)
            self.json_dumps = other.json_dumps
        self._found = self._built_in()

    # --- the server's texts ---------------------------------------------------------

    def load(self, oid: int, loader: Load, array_oid: int = 0) -> None:
        """Have a loader make the values of a type, and those of its arrays.

        Args:
            oid: The type's number.
            loader: Makes a value of the server's text.
            array_oid: The number of its arrays; 0 for none.
        """
        self.loaders[oid] = loader
        if array_oid:
            delimiter = ";" if oid == _OID["box"] else ","
            self.loaders[array_oid] = partial(
                parse_array, load=loader, delimiter=delimiter
            )

    def loader(self, oid: int) -> Load:
        """Return what makes a value of a type's text, for what stands inside others.

        Args:
            oid: The type's number.
        """
        found = self.loaders.get(oid) or plain.LOADERS.get(oid)
        if found is not None:
            return found
        for element, array in ARRAYS.items():
            if array == oid:
                return partial(parse_array, load=self.loader(element))
        return str

    def load_json(self, loads: Load) -> None:
        """Have a function read json and jsonb.

        Args:
            loads: Makes a value of the text.
        """
        for name in ("json", "jsonb"):
            self.load(_OID[name], loads, BY_NAME[name].array_oid)

    def _load_built_in(self) -> None:
        self.load_json(json.loads)
        self.load(_OID["inet"], plain.load_address, BY_NAME["inet"].array_oid)
        self.load(_OID["cidr"], plain.load_network, BY_NAME["cidr"].array_oid)
        for name in _TEXTS:
            self.load(_OID[name], str, BY_NAME[name].array_oid)
        for name, bound in _RANGES.items():
            read = plain.LOADERS[_OID[bound]]
            self.load(
                _OID[name], partial(parse_range, load=read), BY_NAME[name].array_oid
            )
            many = BY_NAME[name.replace("range", "multirange")]
            self.load(many.oid, partial(parse_multirange, load=read), many.array_oid)
        record = BY_NAME["record"]
        self.load(record.oid, _load_row, record.array_oid)

    # --- parameters -----------------------------------------------------------------

    def adapt(self, value: object) -> _native.Typed:
        """Make a parameter of a value; the bridge calls it for what it does not know.

        Args:
            value: The value.

        Raises:
            ProgrammingError: Its type is not known.
            DataError: It cannot be sent.
        """
        oid, text = self.dump(value)
        if isinstance(text, bytes):
            return _native.Typed(oid, text, binary=True)
        return _native.Typed(oid, _encoded(text))

    def dump(self, value: object) -> tuple[int, str | bytes]:
        """Return a type's number and the text of a value, or its bytes.

        Args:
            value: Anything but None.

        Raises:
            ProgrammingError: Its type is not known.
            DataError: It cannot be sent.
        """
        kind = type(value)
        dumper = self._found.get(kind)
        if dumper is None:
            dumper = self._find(kind)
            self._found[kind] = dumper
        return dumper(value)

    def register(self, kind: type, dumper: Dump) -> None:
        """Have a function make parameters of a class's values.

        Args:
            kind: The class; its subclasses count.
            dumper: Makes a type's number and a text, or bytes for the binary form.
        """
        self.dumpers[kind] = dumper
        self._found = self._built_in()

    def _find(self, kind: type) -> Dump:
        for base in kind.__mro__:
            if base in self._found:
                return self._found[base]
            if base is Enum:
                return _dump_enum
            if base.__module__ == "numpy" and base.__name__ == "generic":
                return self._dump_numpy
        if issubclass(kind, dict):
            raise ProgrammingError(
                "a dict cannot be sent as it is: wrap it in poolproof.driver.Json or "
                "Jsonb, or register hstore with poolproof.driver.register_type"
            )
        raise ProgrammingError(
            f"a value of type {kind.__module__}.{kind.__qualname__} cannot be sent: "
            "convert it to one of Python's own types, or register its type with "
            "poolproof.driver.register_type"
        )

    def _dump_numpy(self, value: Any) -> tuple[int, str | bytes]:
        return self.dump(value.item())

    def _built_in(self) -> dict[type, Dump]:
        """Return what is known before a class is looked for among its bases."""
        return {
            **_PLAIN,
            list: self._dump_list,
            tuple: self._dump_row,
            Json: partial(self._dump_json, _OID["json"]),
            Jsonb: partial(self._dump_json, _OID["jsonb"]),
            Range: self._dump_range,
            **({} if MultiRange is list else {MultiRange: self._dump_multirange}),
            **self.dumpers,
        }

    def text(self, value: Any) -> str | None:
        """Return the text of what stands inside another value; None for NULL.

        Args:
            value: Anything.
        """
        if value is None:
            return None
        _, text = self.dump(value)
        return f"\\x{text.hex()}" if isinstance(text, bytes) else text

    def _dump_list(self, values: list[Any]) -> tuple[int, str]:
        text = array_text(values, self.text)
        oids = {self.dump(one)[0] for one in _elements(values)}
        if len(oids) > 1 and oids <= {*_INTEGERS}:
            oids = {max(oids, key=_INTEGERS.index)}
        kinds = sorted({type(one).__name__ for one in _elements(values)})
        if len(kinds) == 1:
            oids.discard(_UNKNOWN)  # as an empty range among others
        if len(oids) > 1:
            raise DataError(
                f"a list of {', '.join(kinds)} is no array: its elements are all of "
                "one type"
            )
        oid = oids.pop() if oids else _UNKNOWN
        return self.array_oids.get(oid) or ARRAYS.get(oid, _UNKNOWN), text

    def _dump_row(self, values: tuple[Any, ...]) -> tuple[int, str]:
        return _UNKNOWN, row_text(self.text(value) for value in values)

    def _dump_json(self, oid: int, value: Json) -> tuple[int, str]:
        text = (value.dumps or self.json_dumps)(value.value)
        return oid, text.decode() if isinstance(text, bytes) else text

    def _dump_range(self, value: Range[Any]) -> tuple[int, str]:
        return self._range_oid([value]), range_text(value, self.text)

    def _dump_multirange(self, values: Sequence[Range[Any]]) -> tuple[int, str]:
        oid = _MULTIRANGE_OF.get(self._range_oid(values), _UNKNOWN)
        return oid, multirange_text(values, self.text)

    def _range_oid(self, values: Sequence[Range[Any]]) -> int:
        """Say which range has such bounds; unknown where they do not tell."""
        bounds = [
            bound
            for value in values
            for bound in (value.lower, value.upper)
            if bound is not None
        ]
        oids = {self.dump(bound)[0] for bound in bounds}
        return _RANGE_OF.get(oids.pop(), _UNKNOWN) if len(oids) == 1 else _UNKNOWN


def _load_row(text: str) -> tuple[str | None, ...]:
    return tuple(parse_row(text))


def _elements(values: list[Any]) -> Iterator[Any]:
    for value in values:
        if type(value) is list:
            yield from _elements(value)
        elif value is not None:
            yield value


def _encoded(text: str) -> bytes:
    if "\0" in text:
        raise DataError(
            "PostgreSQL has no text with a NUL in it: take it out, or send bytes"
        )
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise DataError(
            "a text with half of a character (a surrogate) cannot be sent: it is no "
            "Unicode; decode the bytes that it came from without 'surrogateescape'"
        ) from None


def _dump_enum(value: Enum) -> tuple[int, str]:
    return _UNKNOWN, value.name


def _dump_decimal(value: decimal.Decimal) -> tuple[int, str]:
    return _OID["numeric"], "NaN" if value.is_nan() else str(value)


def _dump_int(value: int) -> tuple[int, str]:
    return plain.int_oid(value), str(int(value))


def _dump_float(value: float) -> tuple[int, str]:
    return _OID["float8"], repr(float(value))


def _dump_bool(value: bool) -> tuple[int, str]:
    return _OID["bool"], "t" if value else "f"


def _dump_str(value: str) -> tuple[int, str]:
    return _UNKNOWN, str.__str__(value)


def _dump_bytes(value: Any) -> tuple[int, bytes]:
    return _OID["bytea"], bytes(value)


def _dump_date(value: dt.date) -> tuple[int, str]:
    return _OID["date"], value.isoformat()


def _dump_datetime(value: dt.datetime) -> tuple[int, str]:
    name = "timestamp" if value.tzinfo is None else "timestamptz"
    return _OID[name], value.isoformat(" ")


def _dump_time(value: dt.time) -> tuple[int, str]:
    return _OID["time" if value.tzinfo is None else "timetz"], value.isoformat()


def _dump_interval(value: dt.timedelta) -> tuple[int, str]:
    return _OID["interval"], plain.interval_text(value)


def _dump_uuid(value: uuid.UUID) -> tuple[int, str]:
    return _OID["uuid"], str(value)


def _dump_address(value: Any) -> tuple[int, str]:
    return _OID["inet"], str(value)


def _dump_network(value: Any) -> tuple[int, str]:
    return _OID["cidr"], str(value)


_PLAIN: dict[type, Dump] = {
    str: _dump_str,
    int: _dump_int,
    bool: _dump_bool,
    float: _dump_float,
    decimal.Decimal: _dump_decimal,
    bytes: _dump_bytes,
    bytearray: _dump_bytes,
    memoryview: _dump_bytes,
    dt.date: _dump_date,
    dt.datetime: _dump_datetime,
    dt.time: _dump_time,
    dt.timedelta: _dump_interval,
    uuid.UUID: _dump_uuid,
    ipaddress.IPv4Address: _dump_address,
    ipaddress.IPv6Address: _dump_address,
    ipaddress.IPv4Interface: _dump_address,
    ipaddress.IPv6Interface: _dump_address,
    ipaddress.IPv4Network: _dump_network,
    ipaddress.IPv6Network: _dump_network,
}

adapters = Adapters()
