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
HUGE = 10**400  # more than a float can be
WRONG = [
    ("pool_size", "pool_size", [-1, "5", 5.0, 2.5, True, False, None, math.nan, [5]]),
    ("max_overflow", "max_overflow", ["10", 1.5, True, None, math.nan, math.inf]),
    ("timeout", "pool_timeout", [-1, -0.5, "30", "", math.nan, True, False, [30]]),
    ("recycle", "pool_recycle", ["3600", "", math.nan, -2, True, None]),
    ("use_lifo", "pool_use_lifo", ["yes", "true", "false", "", 2, None]),
    ("pre_ping", "pool_pre_ping", ["true", "True", "false", "0", "", 2, None]),
    ("reset_on_return", "pool_reset_on_return", ["rolback", "", "None", 7, []]),
    ("echo", "echo_pool", ["yes", "true", "", 2, []]),
    ("ping_idle_after", "ping_idle_after", [-1, "1", True, math.nan]),
    ("ping_timeout", "ping_timeout", [0, -1, "1", True, None, math.nan]),
    ("checkout_timeout", "checkout_timeout", [0, -1, "1", "", True, math.nan]),
    ("reset_timeout", "reset_timeout", [0, -1, "1", True, math.nan]),
    ("hold_timeout", "hold_timeout", [0, -1, "1", True, math.nan]),
    ("hold_warning", "hold_warning", [0, -1, "1", True, math.nan]),
    ("nested_timeout", "nested_timeout", [-1, "1", True, math.nan]),
    ("keep_alive", "keep_alive", [True, 5, (5, 2), (5, 2, 0), (5, 2, 3.0), [5, 2]]),
    ("keep_alive", "keep_alive", [(32768, 2, 3), (5, 32768, 3), (5, 2, 128)]),
    ("hold_timeout", "hold_timeout", [HUGE]),
    ("ping_idle_after", "ping_idle_after", [HUGE]),
    ("tcp_user_timeout", "tcp_user_timeout", [0, -1, "1", True, math.nan]),
    ("fail_fast_after", "fail_fast_after", [0, -1, "1", True, 1.5]),
    ("max_lifetime", "max_lifetime", [0, 0.5, -1, "1", True, math.nan]),
    ("max_idle", "max_idle", [0, -1, "1", True, math.nan]),
    ("min_idle", "min_idle", [-1, "1", True, None, 1.5]),
    ("max_waiting", "max_waiting", [-1, "1", True, 1.5, math.nan]),
]
CASES = [
    pytest.param(name, argument, value, id=f"{name}={value!r}")
    for name, argument, values in WRONG
    for value in values
]
ALLOWED = {
    "pool_size": "0",
    "max_overflow": "below 0 it sets no bound",
    "timeout": "None",
    "recycle": "-1",
    "use_lifo": "True or False",
    "pre_ping": 'True, False or "always"',
    "reset_on_return": (
        '"rollback" (or True), "commit", "discard_all" or None (or False)'
    ),
    "echo": "debug",
    "ping_idle_after": "seconds, 0",
    "ping_timeout": "seconds, more than 0",
    "checkout_timeout": "seconds, more than 0",
    "reset_timeout": "seconds, more than 0",
    "hold_timeout": "seconds, more than 0",
    "hold_warning": "seconds, more than 0",
    "nested_timeout": "seconds, 0 (do not wait) or more",
    "keep_alive": "three whole numbers",
    "tcp_user_timeout": "seconds, more than 0",
    "fail_fast_after": "1 or more",
    "max_lifetime": "1 or more",
    "max_idle": "seconds, more than 0",
    "min_idle": "0 or more",
    "max_waiting": "0 (nobody waits) or more",
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
        ("max_overflow", -5),
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
        ("pool_pre_ping", "always"),
        ("ping_idle_after", 0),
        ("ping_idle_after", None),
        ("ping_timeout", 30.0),
        ("checkout_timeout", None),
        ("reset_timeout", None),
        ("keep_alive", None),
        ("keep_alive", (32767, 32767, 127)),
        ("keep_alive", [5, 2, 3]),
        ("fail_fast_after", 1),
        ("max_lifetime", 1),
        ("max_lifetime", None),
        ("max_idle", None),
        ("min_idle", 5),
        ("max_waiting", 0),
        ("max_waiting", 2**70),
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


@pytest.mark.parametrize(
    "values",
    [
        {"ping_timeout": 3, "pool_timeout": 2},
        {"ping_timeout": 3, "checkout_timeout": 2.5},
        {"min_idle": 6, "pool_size": 5},
        {"hold_warning": 2, "hold_timeout": 2},
        {"hold_warning": 3, "hold_timeout": 2},
    ],
    ids=" and ".join,
)
def test_two_values_that_do_not_go_together_are_refused_by_both_names(values):
    with pytest.raises(exc.ArgumentError) as caught:
        create_engine(URL, poolclass=poolproof.Pool, **values)
    text = str(caught.value)
    for name, value in values.items():
        assert name in text
        assert f"{value:g}" in text


@pytest.mark.parametrize(
    "values",
    [
        {"pool_timeout": 1},  # the default of ping_timeout was not chosen by anybody
        {"pool_timeout": 0},
        {"pool_timeout": 0, "ping_timeout": 3},  # 0 is about waiting alone
        {"pool_timeout": None, "ping_timeout": 100},
        {"min_idle": 5, "pool_size": 0},
        {"hold_warning": 1, "hold_timeout": 2},
    ],
    ids=" and ".join,
)
def test_two_values_that_go_together_are_taken(values):
    engine = create_engine(URL, poolclass=poolproof.Pool, **values)
    again = engine.pool.recreate()
    assert again.settings == engine.pool.settings
    engine.dispose()
