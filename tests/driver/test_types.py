"""Values there and back: as the server has them, and as psycopg gives them.

Long, because it is one idea: each type in both directions.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import ipaddress
import json
import math
import uuid
from enum import Enum, IntEnum

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb as TheirJsonb
from psycopg.types.range import Range as TheirRange

from poolproof.driver import DataError, Json, Jsonb, MultiRange, Range, connect

# One connection serves all examples: each is a question of its own.
quickly = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def kept(dsn):
    """Open for all these tests what prepares nothing, and what prepares all."""
    with contextlib.ExitStack() as stack:
        opened = {}
        for threshold in (None, 0):
            opened[threshold] = connect(dsn, prepare_threshold=threshold)
            stack.callback(opened[threshold].close)
        yield opened


@pytest.fixture(params=[None, 0], ids=["text", "binary"])
def cursor(kept, request):
    """Make a cursor that prepares nothing, or all: then values come as binary, too."""
    connection = kept[request.param]
    with connection.cursor() as made:
        yield made
    connection.rollback()


@pytest.fixture(scope="module")
def other(dsn):
    """Open psycopg's connection for all these tests."""
    with psycopg.connect(dsn, autocommit=True) as opened:
        yield opened


texts = st.text(
    alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])
)
zones = st.integers(-15 * 60 + 1, 15 * 60 - 1).map(
    lambda minutes: dt.timezone(dt.timedelta(minutes=minutes))
)
# A zone must not carry a time out of the years that Python has.
moments = st.datetimes().filter(lambda moment: 2 <= moment.year < 9998)
numbers = st.decimals(allow_nan=False, allow_infinity=False, places=6)

VALUES = {
    "bool": st.booleans(),
    "int2": st.integers(-(1 << 15), (1 << 15) - 1),
    "int4": st.integers(-(1 << 31), (1 << 31) - 1),
    "int8": st.integers(-(1 << 63), (1 << 63) - 1),
    "float8": st.floats(allow_nan=False),
    "numeric": st.one_of(numbers, st.integers(-(10**40), 10**40).map(decimal.Decimal)),
    "text": texts,
    "varchar": texts,
    "bytea": st.binary(),
    "date": st.dates(),
    "time": st.times(),
    "timetz": st.times(timezones=zones),
    "timestamp": st.datetimes(),
    "timestamptz": st.builds(
        lambda moment, zone: moment.replace(tzinfo=zone), moments, zones
    ),
    "interval": st.timedeltas(dt.timedelta(-(10**6)), dt.timedelta(10**6)),
    "uuid": st.uuids(),
    "inet": st.one_of(st.ip_addresses(), st.just(ipaddress.ip_interface("::1/64"))),
}


@pytest.mark.parametrize("name", VALUES)
def test_value_comes_back_as_it_was_sent(cursor, name):
    @quickly
    @given(VALUES[name])
    def comes_back(value):
        cursor.execute(f"select %s::{name}", [value])
        assert cursor.fetchall() == [(value,)]

    comes_back()


@pytest.mark.parametrize("name", VALUES)
def test_server_understands_a_value_as_it_understands_psycopgs(cursor, other, name):
    @quickly
    @given(VALUES[name])
    def understands(value):
        query = f"select (%s::{name})::text"
        assert cursor.execute(query, [value]).fetchone() == (
            other.execute(query, [value]).fetchone()
        )

    understands()


@pytest.mark.parametrize("name", [name for name in VALUES if name != "inet"])
def test_array_comes_back_as_it_was_sent(cursor, name):
    elements = st.one_of(st.none(), VALUES[name])

    @quickly
    @given(st.lists(elements, max_size=5))
    def comes_back(values):
        cursor.execute(f"select %s::{name}[]", [values])
        assert cursor.fetchall() == [(values,)]

    comes_back()


@quickly
@given(st.data())
def test_arrays_may_have_many_dimensions(cursor, data):
    first, second = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    row = st.lists(st.one_of(st.none(), texts), min_size=second, max_size=second)
    values = data.draw(st.lists(row, min_size=first, max_size=first))
    assert cursor.execute("select %s::text[]", [values]).fetchone() == (values,)


def test_bounds_of_an_array_are_left_out(cursor):
    cursor.execute("select '[0:1]={1,2}'::int[], '[2:3][-1:0]={{1,2},{3,4}}'::int[]")
    assert cursor.fetchone() == ([1, 2], [[1, 2], [3, 4]])


json_values = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.integers(-(10**15), 10**15)),
        *(st.floats(-(10**6), 10**6), texts),
    ),
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=8,
)


@quickly
@given(json_values)
def test_json_comes_back_as_it_was_sent(cursor, value):
    cursor.execute("select %s, %s", [Json(value), Jsonb(value)])
    assert cursor.fetchone() == (value, value)


bounds = st.sampled_from(["[]", "[)", "(]", "()"])
integers = st.integers(-1000, 1000)


def _ranges(values):
    return st.builds(
        lambda pair, kind: Range(min(pair), max(pair), bounds=kind),
        st.tuples(values, values),
        bounds,
    )


RANGES = {
    "int4range": integers,
    "int8range": integers,
    "numrange": numbers,
    "daterange": st.dates(dt.date(1000, 1, 1), dt.date(3000, 1, 1)),
    "tsrange": moments,
    "tstzrange": moments.map(lambda moment: moment.replace(tzinfo=dt.timezone.utc)),
}


@pytest.mark.parametrize("name", RANGES)
def test_range_is_what_psycopg_makes_of_it(cursor, other, name):
    @quickly
    @given(_ranges(RANGES[name]))
    def same(value):
        theirs = TheirRange(value.lower, value.upper, value.bounds)
        query = f"select %s::{name}"
        ours = cursor.execute(query, [value]).fetchone()[0]
        found = other.execute(query, [theirs]).fetchone()[0]
        assert ours.empty == found.isempty
        if not ours.empty:
            assert (ours.lower, ours.upper, ours.bounds) == (
                *(found.lower, found.upper, found.bounds),
            )

    same()


@pytest.mark.parametrize("name", RANGES)
def test_multirange_and_arrays_of_ranges_come_back(cursor, name):
    many = name.replace("range", "multirange")

    @quickly
    @given(st.lists(_ranges(RANGES[name]), max_size=3))
    def come_back(values):
        cursor.execute(
            f"select %s::{many} = %s::{many}, %s::{name}[]",
            [MultiRange(values), MultiRange(values), values],
        )
        is_equal, found = cursor.fetchone()
        assert is_equal
        again = cursor.execute(f"select %s::{name}[]", [found]).fetchone()[0]
        assert again == found
        members = cursor.execute(f"select %s::{many}", [MultiRange(values)]).fetchone()
        assert isinstance(members[0], MultiRange)
        back = cursor.execute(f"select %s::{many}", list(members)).fetchone()
        assert back == members

    come_back()


def test_ranges_without_a_bound_and_empty_ones_come_back(cursor):
    for value in (Range(None, 5, bounds="()"), Range(1, None), Range(empty=True)):
        cursor.execute("select %s::int4range", [value])
        assert cursor.fetchone()[0].__eq__(
            Range(None, 5, bounds="()")
            if value.lower is None and value.upper
            else value
        )


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_none_come_back(cursor, text):
    for _ in range(2):
        cursor.execute("select %s, %s::float8", [decimal.Decimal(text), float(text)])
        number, approximate = cursor.fetchone()
    if text == "NaN":
        assert number.is_nan()
        assert math.isnan(approximate)
    else:
        assert (number, approximate) == (decimal.Decimal(text), float(text))


def test_scale_of_a_numeric_is_kept(cursor):
    for _ in range(2):
        cursor.execute("select 1.500::numeric, '1e10'::numeric, 0.00::numeric(4,2)")
        assert [str(value) for value in cursor.fetchone()] == [
            "1.500",
            "10000000000",
            "0.00",
        ]


UNREADABLE = [
    *("'infinity'::date", "'-infinity'::timestamptz", "'infinity'::timestamp"),
    *("'0044-03-15 BC'::date", "'10000-01-01'::timestamp", "'24:00'::time"),
]


@pytest.mark.parametrize("literal", UNREADABLE)
def test_what_python_cannot_hold_is_the_same_error(connecting, literal):
    said = set()
    for threshold in (None, 0):
        cursor = connecting(autocommit=True, prepare_threshold=threshold).cursor()
        for _ in range(2):
            with pytest.raises(DataError) as caught:
                cursor.execute(f"select {literal}")
            said.add(str(caught.value))
    assert len(said) == 1


# What the server has, written by itself: the driver's value equals psycopg's.
LITERALS = [
    *("'{}'::int[]", "null::int", "'a'::\"char\"", "'a'::name", "'ab '::char(5)"),
    *("1::oid", "'(1,2)'::tid", "1.5::float4", "1e300::float8"),
    *("'12.34'::money", "'10101'::bit(5)", "'101'::varbit", "'<a/>'::xml"),
    *("'192.168.0.1'::inet", "'192.168.0.1/24'::inet", "'10.0.0.0/8'::cidr"),
    *("'::1'::inet", "'2001:db8::/32'::cidr", "'08:00:2b:01:02:03'::macaddr"),
    *("'1 year 2 mons -3 days 04:05:06.7'::interval", "'-00:00:01.5'::interval"),
    *("'-1 year'::interval", "'0'::interval", "'12:00:00+05:30'::timetz"),
    *("'(1,2)'::point", "'((1,2),(3,4))'::box", "'<(1,2),3>'::circle"),
    *("'{(1,2),(3,4);(5,6),(7,8)}'::box[]", "'((1,2),(3,4))'::polygon"),
    *("'a fat cat'::tsvector", "'fat & cat'::tsquery", "'16/B374D848'::pg_lsn"),
    *("row(1, 'a b', null, '')", "'$.a'::jsonpath", "'{\"a\": [1, null]}'::jsonb"),
    *("array['{\"a\": 1}'::json]", "array[null, '10.0.0.1'::inet]"),
    *(
        "array['1 day'::interval]",
        "array['\\x00ff'::bytea, null]",
        "'pg_class'::regclass",
    ),
    *(
        "array['{1}'::xml]",
        "array[array[1,2],array[3,4]]",
        "array['a\"b\\c', 'null', '']",
    ),
    *("'1 2 3'::int2vector", "'1 2'::oidvector", "''::text", "void_in('')"),
    *(
        "'2020-02-29 23:59:59.999999'::timestamp",
        "'2020-01-01 00:00:00+00'::timestamptz",
    ),
]


@pytest.mark.parametrize("literal", LITERALS)
def test_value_is_psycopgs(cursor, other, literal):
    theirs = other.execute(f"select {literal}").fetchone()
    for _ in range(2):  # the second time as it was prepared to be
        ours = cursor.execute(f"select {literal}").fetchone()
        assert ours == theirs
        assert type(ours[0]) is type(theirs[0])


class Colour(Enum):
    RED = 1
    BLUE = 2


class Word(str, Enum):
    YES = "yes-value"


class Level(IntEnum):
    HIGH = 3


class OwnText(str):
    """A text of a class of its own."""

    __slots__ = ()


def test_values_of_derived_classes_travel_as_what_they_derive_from(cursor):
    cursor.execute(
        "select %s::text, %s::text, %s::int, %s::text, %s",
        [Colour.RED, Word.YES, Level.HIGH, OwnText("x"), True],
    )
    assert cursor.fetchone() == ("RED", "yes-value", 3, "x", True)


def test_numpys_scalars_travel_as_python_numbers(cursor):
    numpy = pytest.importorskip("numpy")
    cursor.execute("select %s, %s", [numpy.int64(5), numpy.float64(1.5)])
    assert cursor.fetchone() == (5, 1.5)


def test_tuple_travels_as_a_row(cursor):
    cursor.execute("create type pg_temp.pair as (n int, t text)")
    cursor.execute("select (%s::pg_temp.pair).t", [(1, 'a "b", (c)')])
    assert cursor.fetchone() == ('a "b", (c)',)


def test_json_functions_of_ones_own_are_used(connection):
    ways = connection.own_adapters()
    ways.json_dumps = lambda value: json.dumps({"wrapped": value})
    ways.load_json(lambda text: ("read", json.loads(text)))
    found = connection.execute("select %s", [Jsonb(1)]).fetchone()
    assert found == (("read", {"wrapped": 1}),)


def test_text_parameter_takes_the_type_that_stands_around_it(cursor):
    cursor.execute("select %s = 5, %s::date, %s", ["5", "2020-01-01", "x"])
    assert cursor.fetchone() == (True, dt.date(2020, 1, 1), "x")
    assert cursor.description[2].type_code == 25


def test_jsonb_is_what_psycopg_makes_of_it(cursor, other):
    value = {"a": [1, 2.5, None, "ü"], "b": {"c": True}}
    ours = cursor.execute("select %s", [Jsonb(value)]).fetchone()
    theirs = other.execute("select %s", [TheirJsonb(value)]).fetchone()
    assert ours == theirs


def test_uuid_may_be_sent_as_text(cursor):
    value = uuid.uuid4()
    cursor.execute("select %s::uuid", [str(value)])
    assert cursor.fetchone() == (value,)


def test_classes_of_errors_are_psycopgs():
    from poolproof.driver.errors import of_server

    for name, theirs in vars(psycopg.errors).items():
        state = getattr(theirs, "sqlstate", None)
        if isinstance(theirs, type) and isinstance(state, str):
            ours = of_server({"C": state, "M": name})
            parents = {kind.__name__ for kind in theirs.__mro__}
            assert type(ours).__name__ in parents, (state, name)


def test_a_numeric_is_exact_whatever_the_context_says(cursor):
    digits = "1234567890" * 20 + ".5"
    with decimal.localcontext() as context:
        context.prec = 3
        context.traps[decimal.Inexact] = True
        for text in (digits, "NaN", "-0.00"):
            cursor.execute("select %s::numeric", [text])
            found = cursor.fetchone()[0]
            assert type(found) is decimal.Decimal
            assert str(found) == text.replace("-", "")


@pytest.mark.parametrize("kind", ["timestamp", "timestamptz"])
def test_moments_of_many_days_are_those_of_their_texts(cursor, kind):
    cursor.execute("set time zone 'UTC'")
    zone = "+00:00" if kind == "timestamptz" else ""
    shown = f"to_char(s, 'YYYY-MM-DD HH24:MI:SS.US') || '{zone}'"
    days = "'1999-12-29', '2000-01-04', '7 hours 13 minutes 0.25 seconds'"
    series = f"generate_series({kind} {days})"
    cursor.execute(f"select s, {shown} from {series} s order by md5(s::text)")
    found = cursor.fetchall()
    assert len(found) == 20
    for moment, text in found:
        assert moment == dt.datetime.fromisoformat(text)
