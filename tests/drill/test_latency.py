"""Times in steps."""

from __future__ import annotations

import pytest

from poolproof.drill.latency import STEPS, by_step, percentile, together


def test_each_time_is_of_the_step_that_it_does_not_exceed():
    times_ms = [0, 0.4, 1, 1.01, 2, 9, 4999, 5000, 5001, 1e9]
    assert by_step(ms / 1000 for ms in times_ms) == {
        "1": 3,
        "2": 2,
        "10": 1,
        "5000": 2,
        "more": 2,
    }
    assert by_step([]) == {}


def test_counts_are_added_in_order():
    assert list(together({"5": 1, "more": 1}, {"1": 2, "5": 3}).items()) == [
        ("1", 2),
        ("5", 4),
        ("more", 1),
    ]


@pytest.mark.parametrize(
    ("share", "step"), [(0.01, "1"), (0.5, "1"), (0.51, "2"), (0.99, "2"), (1, "more")]
)
def test_percentile_is_the_end_of_a_step(share, step):
    assert percentile({"1": 50, "2": 49, "more": 1}, share) == step


def test_steps_have_names_of_their_own():
    assert len(set(STEPS)) == len(STEPS)
