"""Trials put together."""

from __future__ import annotations

import inspect
import typing

import pytest

from poolproof.drill.incidents import INCIDENTS, Measure
from poolproof.drill.service import ServiceOutcome
from poolproof.drill.tally import Cell, Row
from poolproof.drill.traffic import texts


def row(incident: str, *outcomes: dict[str, object], crashes: int = 0) -> Row:
    made = Row(Cell(INCIDENTS[incident], "psycopg2", "poolproof"), len(outcomes))
    made.outcomes = dict(enumerate(outcomes))
    made.crashes = crashes
    return made


def fork(**counts: int) -> dict[str, object]:
    fields = ("requests", "wrong", "lost", "ghosts", "hangs", "errors")
    return {**dict.fromkeys(fields, 0), "samples": [], **counts}


@pytest.mark.parametrize("fault", ["wrong", "lost", "ghosts", "hangs"])
def test_each_kind_of_silent_harm_is_a_fault(fault):
    assert row("fork", fork(), fork(**{fault: 2})).faults == 2


def test_an_error_that_surfaced_is_no_fault():
    assert row("fork", fork(errors=7)).faults == 0


def test_a_crashed_trial_is_a_fault():
    assert row("fork", fork(), crashes=1).faults == 1


@pytest.mark.parametrize(("over", "value"), [("sum", 12), ("worst", 9), ("median", 2)])
def test_trials_are_put_together_as_the_measure_says(over, value):
    measure = Measure("errors", "errors", over=over)
    assert (
        row("fork", fork(errors=1), fork(errors=9), fork(errors=2)).value(measure)
        == value
    )


def test_a_row_without_a_trial_has_no_value():
    assert row("fork").value(Measure("errors", "errors")) is None


def test_what_callers_could_see_is_harm_and_no_fault():
    made = row("fork", fork(errors=7, wrong=2))
    assert (made.harm, made.faults) == (9, 2)
    assert made.culprits == {"wrong results": 2}


def test_error_texts_are_added_up():
    made = row("fork", fork(heard={"a": 2}), fork(heard={"a": 1, "b": 1}))  # type: ignore[arg-type]
    assert made.heard == {"a": 3, "b": 1}


def test_texts_that_differ_in_names_of_the_drill_alone_are_the_same():
    name = "poolproof_drill_0123456789ab"
    told = [f'relation "{name}" is gone', f'relation "{name[:-1]}c" is gone']
    assert texts(told) == {'relation "…" is gone': 2}


def test_texts_that_differ_in_numbers_alone_are_the_first_of_them():
    told = ["none within 0.40 s, 53 wait", "none within 0.41 s, 7 wait", "Thread-3"]
    assert texts(told) == {told[0]: 2, told[2]: 1}


def test_samples_are_kept_once():
    made = row("fork", fork(samples=["a", "b"]), fork(samples=["b"]))  # type: ignore[arg-type]
    assert made.samples == ("a", "b")


def test_every_measure_is_a_field_of_its_outcome():
    for incident in INCIDENTS.values():
        kind = typing.get_type_hints(
            incident.play,
            vars(inspect.getmodule(incident.play))
            | {"Stage": object, "ServiceOutcome": ServiceOutcome},
        )["return"]
        fields = set(kind.__dataclass_fields__)
        assert {measure.field for measure in incident.measures} <= fields


def test_an_incident_may_need_fewer_trials():
    assert INCIDENTS["starvation"].trials_of(25) == 5
    assert INCIDENTS["starvation"].trials_of(2) == 2
    assert INCIDENTS["fork"].trials_of(25) == 25
    assert INCIDENTS["fork"].trials_of(None) == 2
