"""What PEP 249 calls the description of a result."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from poolproof.driver.oids import BY_NAME

if TYPE_CHECKING:
    from poolproof import _native

__all__ = ["Described"]

_NUMERIC = BY_NAME["numeric"].oid
_FRACTIONAL = {
    BY_NAME[name].oid
    for name in ("time", "timetz", "timestamp", "timestamptz", "interval")
}
_TEXTS = {BY_NAME[name].oid for name in ("varchar", "bpchar")}
# What a modifier counts beside the digits.
_HEADER = 4


class Described(NamedTuple):
    """A column of a result.

    Attributes:
        name: Its name.
        type_code: The number of its type, which the module's type objects equal.
        display_size: The greatest number of characters; None where there is no limit.
        internal_size: Its size in bytes; None where that varies.
        precision: Its digits; None where its type has none, or no limit.
        scale: Its digits behind the point, likewise.
        null_ok: Always None: the server does not say.
    """

    name: str
    type_code: int
    display_size: int | None
    internal_size: int | None
    precision: int | None
    scale: int | None
    null_ok: None

    @classmethod
    def of(cls, column: _native.Column) -> Described:
        """Describe a column of the bridge's.

        Args:
            column: The column.
        """
        oid, modifier = column.oid, column.modifier
        display = precision = scale = None
        if modifier >= 0:
            if oid == _NUMERIC:
                precision = modifier - _HEADER >> 16
                # It is below zero where a numeric is rounded to tens and hundreds.
                scale = ((modifier - _HEADER & 0x7FF) ^ 1024) - 1024
            elif oid in _FRACTIONAL:
                precision = modifier & 0xFFFF
            elif oid in _TEXTS:
                display = modifier - _HEADER
        size = column.size if column.size >= 0 else None
        return cls(column.name, oid, display, size, precision, scale, None)
