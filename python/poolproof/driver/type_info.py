"""Types that are a database's own: what the server knows of them, how values travel."""

from __future__ import annotations

import re
from collections import namedtuple
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from poolproof.driver.adapters import Adapters
from poolproof.driver.adapters import adapters as shared
from poolproof.driver.arrays import parse_row, row_text
from poolproof.driver.errors import ProgrammingError
from poolproof.driver.hstore import hstore_text, parse_hstore
from poolproof.driver.ranges import parse_multirange, parse_range

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolproof.driver.adapters import Load
    from poolproof.driver.session import WireSession

__all__ = ["TypeInfo", "register_type"]

_QUERY = """
select t.oid::int8, t.typname::text, t.typarray::int8, t.typtype::text,
    coalesce(t.typbasetype::int8, 0),
    coalesce((select r.rngsubtype::int8 from pg_range r
              where t.oid in (r.rngtypid, {multirange})), 0),
    array(select e.enumlabel::text from pg_enum e where e.enumtypid = t.oid
          order by e.enumsortorder),
    array(select a.attname::text from pg_attribute a
          where a.attrelid = t.typrelid and t.typrelid <> 0
              and a.attnum > 0 and not a.attisdropped order by a.attnum),
    array(select a.atttypid::int8 from pg_attribute a
          where a.attrelid = t.typrelid and t.typrelid <> 0
              and a.attnum > 0 and not a.attisdropped order by a.attnum),
    t.typinput::regproc::text
from pg_type t where t.oid = to_regtype({name})
"""
_WITH_MULTIRANGES = 140_000
_WORD = re.compile(r"\W+")


class TypeInfo(NamedTuple):
    """What a server knows of a type.

    Attributes:
        oid: Its number in this database.
        name: Its name, without the schema.
        array_oid: The number of its arrays; 0 for none.
        kind: ``b`` for a base type, ``c`` composite, ``d`` domain, ``e`` enum, ``r``
            range, ``m`` multirange.
        base_oid: The type that a domain is of; 0 for others.
        bound_oid: The type of a range's bounds; 0 for others.
        labels: Those of an enum, in their order.
        fields: The names of a composite's fields.
        field_oids: Their types.
        is_hstore: Whether it is the extension hstore's.
    """

    oid: int
    name: str
    array_oid: int
    kind: str
    base_oid: int
    bound_oid: int
    labels: tuple[str, ...]
    fields: tuple[str, ...]
    field_oids: tuple[int, ...]
    is_hstore: bool

    @classmethod
    def fetch(cls, session: WireSession, name: str) -> TypeInfo | None:
        """Ask the server for a type.

        Args:
            session: A connection to it.
            name: The type's name, with its schema where it needs one.

        Returns:
            What it knows; None where there is no such type.
        """
        version = session.wire.parameter("server_version") or ""
        first = re.match(r"\d+", version)
        has_multiranges = int(first.group() if first else 0) * 10_000 >= (
            _WITH_MULTIRANGES
        )
        multirange = "r.rngmultitypid" if has_multiranges else "0"
        literal = "'" + name.replace("'", "''") + "'"
        answer = session.request(_QUERY.format(multirange=multirange, name=literal))
        if not answer.rows:
            return None
        oid, called, array, kind, base, bound, labels, fields, oids, reader = (
            answer.rows[0]
        )
        return cls(
            *(oid, called, array, kind, base, bound),
            *(tuple(labels), tuple(fields), tuple(oids)),
            reader.rpartition(".")[2] == "hstore_in",
        )


def register_type(
    info: TypeInfo,
    context: WireSession | Adapters | None = None,
    *,
    load: Load | None = None,
    dump: Callable[[Any], str] | None = None,
    python_type: type | None = None,
) -> None:
    """Have the values of a type become Python's, and back.

    Without *load* the type itself says how: an hstore is a dict, an enum a member of
    *python_type*, a composite a *python_type* (or a named tuple) of its fields, a range
    an SQLAlchemy `Range`, a domain what its base type is. The same is done for arrays.

    Args:
        info: What `Connection.type_info` has returned.
        context: For which connection, or which `Adapters`; None for all connections
            that have none of their own.
        load: Makes a value of the server's text.
        dump: Makes a text of a value.
        python_type: The class of the values.

    Raises:
        ProgrammingError: What is needed is missing.
    """
    if not isinstance(info, TypeInfo):
        raise ProgrammingError(
            "register_type takes what connection.type_info('name') returns, not "
            f"{info!r}: is there such a type in this database?"
        )
    if context is None:
        ways = shared
    else:
        ways = context if isinstance(context, Adapters) else context.own_adapters()
    if dump is not None and python_type is None:
        raise ProgrammingError(
            "register_type needs python_type= to know which values dump= is for"
        )
    ways.load(info.oid, load or _loader(ways, info, python_type), info.array_oid)
    if info.array_oid:
        ways.array_oids[info.oid] = info.array_oid
    writes = dump or _dumper(ways, info, python_type)
    if writes is not None:
        kind = dict if info.is_hstore and python_type is None else python_type
        if kind is not None:
            ways.register(kind, partial(_dumped, info.oid, writes))


def _dumped(oid: int, dump: Callable[[Any], str], value: Any) -> tuple[int, str]:
    return oid, dump(value)


def _loader(ways: Adapters, info: TypeInfo, kind: type | None) -> Load:
    if info.is_hstore:
        return parse_hstore
    if info.kind == "e" and kind is not None:
        if not issubclass(kind, Enum):
            raise ProgrammingError(
                f"the type {info.name} is an enum, and {kind.__name__} is none: pass "
                "an Enum as python_type, or load= and dump="
            )
        return partial(_member, kind)
    if info.kind == "c":
        return partial(_composite, ways, info, kind or _named(info))
    if info.kind in {"r", "m"}:
        parse = parse_range if info.kind == "r" else parse_multirange
        return partial(parse, load=ways.loader(info.bound_oid))
    return ways.loader(info.base_oid) if info.kind == "d" else kind or str


def _dumper(
    ways: Adapters, info: TypeInfo, kind: type | None
) -> Callable[[Any], str] | None:
    if info.is_hstore:
        return hstore_text
    if kind is None:
        return None
    if info.kind == "e":
        return partial(_label, info.labels)
    if info.kind == "c":
        return partial(_fields_text, ways, info)
    return str


def _member(kind: type[Enum], label: str) -> Enum:
    """Find a member by its name, or else by its value."""
    try:
        return kind[label]
    except KeyError:
        return kind(label)


def _label(labels: tuple[str, ...], value: Enum) -> str:
    """Find a member's label as `_member` finds its member."""
    is_by_value = value.name not in labels and value.value in labels
    return str(value.value) if is_by_value else value.name


def _named(info: TypeInfo) -> Callable[..., Any]:
    names = [_WORD.sub("_", name) for name in info.fields]
    return namedtuple(_WORD.sub("_", info.name), names, rename=True)  # noqa: PYI024 - its fields are the database's


def _composite(
    ways: Adapters, info: TypeInfo, kind: Callable[..., Any], text: str
) -> Any:
    texts = list(parse_row(text)) or [None] * len(info.fields)
    return kind(
        *(
            None if field is None else ways.loader(oid)(field)
            for field, oid in zip(texts, info.field_oids, strict=True)
        )
    )


def _fields_text(ways: Adapters, info: TypeInfo, value: Any) -> str:
    values = (
        value
        if isinstance(value, tuple)
        else [getattr(value, name) for name in info.fields]
    )
    return row_text(ways.text(field) for field in values)
