"""Types of a database's own."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import pytest

import poolproof.driver as dbapi
from poolproof.driver import Range, register_type


class Mood(Enum):
    SAD = "sad"
    HAPPY = "so happy"


class Point(NamedTuple):
    x: int
    label: str | None


@pytest.fixture
def own(looking, connection):
    """Make a type, which is dropped at the end; return what the server knows of it."""
    made = []

    def make(name, definition, kind="type"):
        looking.rows(f"drop {kind} if exists {name} cascade")
        looking.rows(f"create {kind} {name} {definition}")
        made.append((kind, name))
        return connection.type_info(name)

    yield make
    connection.rollback()
    for kind, name in reversed(made):
        looking.rows(f"drop {kind} if exists {name} cascade")


def test_type_that_is_not_there_is_none(connection):
    assert connection.type_info("no_such_type") is None
    with pytest.raises(dbapi.ProgrammingError):
        connection.type_info("it's none")
    assert connection.info.transaction_status == 0
    with pytest.raises(dbapi.ProgrammingError, match="type_info"):
        register_type(None, connection)


def test_enum_that_is_found_by_value_is_written_by_value(connection, own):
    info = own("mood", "as enum ('sad', 'so happy', 'HAPPY')")
    register_type(info, connection, python_type=Mood)
    moods = [Mood.SAD, None]
    cursor = connection.execute("select %s::mood, %s::mood[]", [Mood.SAD, moods])
    assert cursor.fetchone() == (Mood.SAD, moods)
    # The name goes first, in both directions.
    found = connection.execute("select %s::mood::text", [Mood.HAPPY]).fetchone()
    assert found == ("HAPPY",)
    assert connection.execute("select 'HAPPY'::mood").fetchone() == (Mood.HAPPY,)


def test_enum_becomes_members_and_back(connection, own):
    info = own("mood", "as enum ('sad', 'so happy')")
    assert info.labels == ("sad", "so happy")
    assert connection.execute("select 'sad'::mood").fetchone() == ("sad",)
    # By value where it has no member of that name.
    register_type(
        info,
        connection,
        python_type=Mood,
        dump=lambda member: member.value,
    )
    sent = [Mood.HAPPY, [Mood.SAD, None]]
    assert connection.execute("select %s, %s", sent).fetchone() == tuple(sent)


def test_composite_becomes_a_tuple_with_names_and_back(connection, own):
    info = own("spot", 'as (x int, "the label" text)')
    register_type(info, connection)
    (found,) = connection.execute("select row(1, 'a \"b\", c')::spot").fetchone()
    assert found == (1, 'a "b", c')
    assert found.x == 1
    assert found.the_label == 'a "b", c'
    register_type(info, connection, python_type=Point)
    for value in (Point(5, None), Point(-1, ""), Point(0, "(\\,\"')")):
        back = connection.execute("select %s, %s", [value, [value]]).fetchone()
        assert back == (value, [value])
        assert type(back[0]) is Point


def test_composites_may_be_in_each_other(connection, own):
    inner = own("inner_one", "as (n int, d date)")
    outer = own("outer_one", "as (i inner_one, many int[])")
    register_type(inner, connection)
    register_type(outer, connection)
    query = "select row(row(1, '2020-01-01')::inner_one, array[1,2])::outer_one"
    (found,) = connection.execute(query).fetchone()
    assert found.i.d.year == 2020
    assert found.many == [1, 2]


def test_domain_is_what_its_base_is(connection, own):
    info = own("positive", "as int check (value > 0)", kind="domain")
    register_type(info, connection)
    found = connection.execute("select 5::positive, array[6::positive]").fetchone()
    assert found == (5, [6])


def test_range_of_ones_own_has_bounds_of_its_type(connection, own):
    info = own("float_range", "as range (subtype = float8)")
    register_type(info, connection)
    found = connection.execute("select float_range(1.5, 2.5)").fetchone()
    assert found == (Range(1.5, 2.5, bounds="[)"),)


def test_hstore_becomes_a_dict_and_back(connection, looking):
    looking.rows("create extension if not exists hstore")
    register_type(connection.type_info("hstore"), connection)
    for value in ({}, {"a": "1", 'q"\\': None, "": "NULL", "k,": "=>"}):
        back = connection.execute("select %s, %s", [value, [value, None]]).fetchone()
        assert back == (value, [value, None])
    with pytest.raises(dbapi.DataError, match="hstore"):
        connection.execute("select %s", [{"a": 1}])


def test_functions_of_ones_own_are_used(connection):
    class Metres:
        def __init__(self, number):
            self.number = number

    register_type(
        connection.type_info("float8"),
        connection,
        load=lambda text: f"{text} m",
        dump=lambda value: str(value.number),
        python_type=Metres,
    )
    found = connection.execute("select %s, array[2.5::float8]", [Metres(1.5)])
    assert found.fetchone() == ("1.5 m", ["2.5 m"])


def test_what_is_registered_for_one_connection_is_not_for_others(connecting):
    one, two = connecting(), connecting()
    register_type(one.type_info("int4"), one, load=lambda text: f"<{text}>")
    assert one.execute("select 1").fetchone() == ("<1>",)
    assert two.execute("select 1").fetchone() == (1,)


def test_what_is_registered_in_adapters_is_for_their_connections(connecting):
    ways = dbapi.Adapters(dbapi.adapters)
    one, two = connecting(adapters=ways), connecting(adapters=ways)
    register_type(one.type_info("int4"), ways, load=lambda text: f"<{text}>")
    assert two.execute("select 1").fetchone() == ("<1>",)


def test_what_is_missing_is_said(connection, own):
    info = own("mood", "as enum ('sad')")
    with pytest.raises(dbapi.ProgrammingError, match="python_type"):
        register_type(info, connection, dump=str)
    with pytest.raises(dbapi.ProgrammingError, match="Enum"):
        register_type(info, connection, python_type=int)
