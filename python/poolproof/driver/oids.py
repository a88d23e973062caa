"""The numbers that PostgreSQL's own types have on every server."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ARRAYS", "BY_NAME", "TYPES", "BuiltIn"]


class BuiltIn(NamedTuple):
    """A type that every server has.

    Attributes:
        name: As `pg_type.typname` has it.
        oid: Its number.
        array_oid: That of the arrays of it.
    """

    name: str
    oid: int
    array_oid: int


TYPES = (
    BuiltIn("bool", 16, 1000),
    BuiltIn("bytea", 17, 1001),
    BuiltIn("char", 18, 1002),
    BuiltIn("name", 19, 1003),
    BuiltIn("int8", 20, 1016),
    BuiltIn("int2", 21, 1005),
    BuiltIn("int2vector", 22, 1006),
    BuiltIn("int4", 23, 1007),
    BuiltIn("text", 25, 1009),
    BuiltIn("oid", 26, 1028),
    BuiltIn("tid", 27, 1010),
    BuiltIn("xid", 28, 1011),
    BuiltIn("cid", 29, 1012),
    BuiltIn("oidvector", 30, 1013),
    BuiltIn("json", 114, 199),
    BuiltIn("xml", 142, 143),
    BuiltIn("point", 600, 1017),
    BuiltIn("lseg", 601, 1018),
    BuiltIn("path", 602, 1019),
    BuiltIn("box", 603, 1020),
    BuiltIn("polygon", 604, 1027),
    BuiltIn("line", 628, 629),
    BuiltIn("cidr", 650, 651),
    BuiltIn("float4", 700, 1021),
    BuiltIn("float8", 701, 1022),
    BuiltIn("circle", 718, 719),
    BuiltIn("macaddr8", 774, 775),
    BuiltIn("money", 790, 791),
    BuiltIn("macaddr", 829, 1040),
    BuiltIn("inet", 869, 1041),
    BuiltIn("bpchar", 1042, 1014),
    BuiltIn("varchar", 1043, 1015),
    BuiltIn("date", 1082, 1182),
    BuiltIn("time", 1083, 1183),
    BuiltIn("timestamp", 1114, 1115),
    BuiltIn("timestamptz", 1184, 1185),
    BuiltIn("interval", 1186, 1187),
    BuiltIn("timetz", 1266, 1270),
    BuiltIn("bit", 1560, 1561),
    BuiltIn("varbit", 1562, 1563),
    BuiltIn("numeric", 1700, 1231),
    BuiltIn("refcursor", 1790, 2201),
    BuiltIn("regclass", 2205, 2210),
    BuiltIn("regtype", 2206, 2211),
    BuiltIn("record", 2249, 2287),
    BuiltIn("uuid", 2950, 2951),
    BuiltIn("pg_lsn", 3220, 3221),
    BuiltIn("tsvector", 3614, 3643),
    BuiltIn("tsquery", 3615, 3645),
    BuiltIn("jsonb", 3802, 3807),
    BuiltIn("int4range", 3904, 3905),
    BuiltIn("numrange", 3906, 3907),
    BuiltIn("tsrange", 3908, 3909),
    BuiltIn("tstzrange", 3910, 3911),
    BuiltIn("daterange", 3912, 3913),
    BuiltIn("int8range", 3926, 3927),
    BuiltIn("jsonpath", 4072, 4073),
    BuiltIn("int4multirange", 4451, 6150),
    BuiltIn("nummultirange", 4532, 6151),
    BuiltIn("tsmultirange", 4533, 6152),
    BuiltIn("tstzmultirange", 4534, 6153),
    BuiltIn("datemultirange", 4535, 6155),
    BuiltIn("int8multirange", 4536, 6157),
    BuiltIn("xid8", 5069, 271),
)
BY_NAME = {one.name: one for one in TYPES}
ARRAYS = {one.oid: one.array_oid for one in TYPES}
