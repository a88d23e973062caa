"""How SQLAlchemy's types become the driver's values.

Parameters travel apart from the statement, so the server must be told what they are:
each type that it would not find out is rendered with a cast. Ranges are SQLAlchemy's
own on both sides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import types as sqltypes
from sqlalchemy.dialects.postgresql import INTERVAL, REGCONFIG, ranges
from sqlalchemy.dialects.postgresql.json import JSON, JSONB, JSONPathType
from sqlalchemy.sql import elements

from poolproof.driver import Json, Jsonb, MultiRange

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["COLSPECS"]


class _String(sqltypes.String):
    render_bind_cast = True


class _Regconfig(REGCONFIG):
    render_bind_cast = True


class _Interval(INTERVAL):
    render_bind_cast = True


class _Timestamp(sqltypes.DateTime):
    render_bind_cast = True


class _Date(sqltypes.Date):
    render_bind_cast = True


class _Time(sqltypes.Time):
    render_bind_cast = True


class _Integer(sqltypes.Integer):
    render_bind_cast = True


class _SmallInteger(sqltypes.SmallInteger):
    render_bind_cast = True


class _BigInteger(sqltypes.BigInteger):
    render_bind_cast = True


class _JSONIntIndex(sqltypes.JSON.JSONIntIndexType):
    __visit_name__ = "json_int_index"
    render_bind_cast = True


class _JSONStrIndex(sqltypes.JSON.JSONStrIndexType):
    __visit_name__ = "json_str_index"
    render_bind_cast = True


def _json_processor(
    kind: sqltypes.JSON, wrap: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    """Return what marks a value as JSON; its text is made by the driver."""

    def process(value: Any) -> Any:
        if value is sqltypes.JSON.NULL:
            return wrap(None)
        if isinstance(value, elements.Null) or (value is None and kind.none_as_null):
            return None
        return wrap(value)

    return process


class _JSON(JSON):
    def bind_processor(self, dialect: Any) -> Any:
        del dialect
        return _json_processor(self, Json)

    def result_processor(self, dialect: Any, coltype: Any) -> None:
        # The driver has read it already.
        del dialect, coltype


class _JSONB(JSONB):
    def bind_processor(self, dialect: Any) -> Any:
        del dialect
        return _json_processor(self, Jsonb)

    def result_processor(self, dialect: Any, coltype: Any) -> None:
        # The driver has read it already.
        del dialect, coltype


class _Range(ranges.AbstractSingleRangeImpl[Any]):
    pass


class _MultiRange(ranges.AbstractMultiRangeImpl[Any]):
    def bind_processor(self, dialect: Any) -> Any:
        del dialect

        def process(value: Any) -> Any:
            if value is None or isinstance(value, (str, MultiRange)):
                return value
            return MultiRange(value)

        return process


COLSPECS = {
    sqltypes.String: _String,
    REGCONFIG: _Regconfig,
    JSON: _JSON,
    sqltypes.JSON: _JSON,
    JSONB: _JSONB,
    sqltypes.JSON.JSONPathType: JSONPathType,
    sqltypes.JSON.JSONIntIndexType: _JSONIntIndex,
    sqltypes.JSON.JSONStrIndexType: _JSONStrIndex,
    sqltypes.Interval: _Interval,
    INTERVAL: _Interval,
    sqltypes.Date: _Date,
    sqltypes.DateTime: _Timestamp,
    sqltypes.Time: _Time,
    sqltypes.Integer: _Integer,
    sqltypes.SmallInteger: _SmallInteger,
    sqltypes.BigInteger: _BigInteger,
    ranges.AbstractSingleRange: _Range,
    ranges.AbstractMultiRange: _MultiRange,
}
