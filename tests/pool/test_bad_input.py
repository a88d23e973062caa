"""Intended differences: a wrong parameter is refused when the engine is made.

QueuePool takes most of these, and fails or misbehaves at the first checkout.
"""

from __future__ import annotations

import math

import pytest
from sqlalchemy import create_engine, engine_from_config, exc

import poolproof

URL = "postgresql+psycopg2://nobody@nowhere.invalid/nothing"

pytestmark = pytest.mark.difference

# parameter of the pool, argument of create_engine, wrong values, what has to be said
WRONG = [
    ("pool_size", "pool_size", [-1, "5", 5.0, 2.5, True, False, None, math.nan, [5]]),
    ("max_overflow", "max_overflow", [-2, "10", 1.5, True, None, math.nan, math.inf]),
    ("timeout", "pool_timeout", [-1, -0.5, "30", "", math.nan, True, False, [30]]),
    ("recycle", "pool_recycle", ["3600", "", math.nan, -2, True, None]),
    ("use_lifo", "pool_use_lifo", ["yes", "true", "false", "", 2, None]),
    ("pre_ping", "pool_pre_ping", ["true", "True", "false", "0", "", 2, None]),
    ("reset_on_return", "pool_reset_on_return", ["rolback", "", "None", 7, []]),
    ("echo", "echo_pool", ["yes", "true", "", 2, []]),
]
CASES = [
    pytest.param(name, argument, value, id=f"{name}={value!r}")
    for name, argument, values in WRONG
    for value in values
]
ALLOWED = {
    "pool_size": "0",
    "max_overflow": "-1",
    "timeout": "None",
    "recycle": "-1",
    "use_lifo": "True or False",
    "pre_ping": "True or False",
    "reset_on_return": '"rollback", "commit" or None',
    "echo": "debug",
}


@pytest.mark.parametrize(("name", "argument", "value"), CASES)
def test_wrong_value_is_refused_with_what_is_allowed(name, argument, value):
    with pytest.raises(exc.ArgumentError) as caught:
        create_engine(URL, poolclass=poolproof.Pool, **{argument: value})
    text = str(caught.value)
    assert name in text
    assert repr(value) in text
    assert ALLOWED[name] in text


@pytest.mark.parametrize(("name", "argument", "value"), CASES)
def test_wrong_value_is_refused_by_the_pool_itself(name, argument, value):
    del argument
    with pytest.raises(exc.ArgumentError, match=name):
        poolproof.Pool(lambda: None, **{name: value})


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("pool_size", 0),
        ("pool_size", 1),
        ("max_overflow", -1),
        ("max_overflow", 0),
        ("pool_timeout", 0),
        ("pool_timeout", 0.001),
        ("pool_timeout", None),
        ("pool_timeout", 10**6),
        ("pool_recycle", -1),
        ("pool_recycle", 0),
        ("pool_recycle", 0.5),
        ("pool_use_lifo", False),
        ("pool_pre_ping", True),
    ],
)
def test_value_at_the_edge_of_its_range_is_taken(argument, value):
    create_engine(URL, poolclass=poolproof.Pool, **{argument: value}).dispose()


@pytest.mark.parametrize("value", [2**31, 2**32, 2**63, 2**64, 10**30])
@pytest.mark.parametrize("argument", ["pool_size", "max_overflow", "pool_timeout"])
def test_enormous_value_is_taken_or_refused_in_words(argument, value):
    try:
        engine = create_engine(URL, poolclass=poolproof.Pool, **{argument: value})
    except exc.ArgumentError as error:
        assert str(value) in str(error)  # noqa: PT017 - either is right
    else:
        assert engine.pool.checkedout() == 0
        engine.dispose()


def test_unknown_argument_of_the_engine_is_refused_as_sqlalchemy_does():
    with pytest.raises(TypeError, match="pool_sizes"):
        create_engine(URL, poolclass=poolproof.Pool, pool_sizes=5)


def test_unknown_parameter_of_the_pool_is_refused_as_sqlalchemy_does():
    with pytest.raises(TypeError, match="pool_sizes"):
        poolproof.Pool(lambda: None, pool_sizes=5)


def test_string_for_pre_ping_in_a_config_file_is_refused():
    """SQLAlchemy turns strings into numbers there, but leaves this one a string."""
    with pytest.raises(exc.ArgumentError, match="pre_ping"):
        engine_from_config(
            {"sqlalchemy.url": URL, "sqlalchemy.pool_pre_ping": "false"},
            poolclass=poolproof.Pool,
        )


@pytest.mark.parametrize("name", ["pool_pre_ping", "pool_use_lifo"])
def test_a_string_that_engine_from_config_leaves_is_not_sent_there(name):
    with pytest.raises(exc.ArgumentError) as caught:
        create_engine(URL, poolclass=poolproof.Pool, **{name: "true"})
    assert "strings" in str(caught.value)
    assert "engine_from_config" not in str(caught.value)


def test_nothing_is_connected_and_nothing_is_kept_of_a_refused_pool():
    calls = []
    with pytest.raises(exc.ArgumentError):
        poolproof.Pool(lambda: calls.append(1), pool_size=-1)
    assert calls == []
