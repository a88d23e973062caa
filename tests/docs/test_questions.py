"""The questions of an incident: each metric, label and page that they name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from poolproof.cli.commands import commands
from poolproof.faults.table import Fault
from poolproof.metrics.table import TABLE

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "questions.md").read_text()
METRICS = {metric.full_name: metric for metric in TABLE}


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\bpoolproof_\w+", PAGE))))
def test_every_metric_is_exported(name):
    assert name.removesuffix("_bucket") in METRICS


def test_every_label_is_one_of_its_metric():
    for name, label in re.findall(r'\b(poolproof_\w+)\{(\w+)="', PAGE):
        assert label in METRICS[name].every_label
    assert 'fault="corruption"' in PAGE
    assert Fault.CORRUPTION.value == "corruption"


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`poolproof (\w+)", PAGE))))
def test_every_command_is_there(name):
    assert name in commands.list_commands(None)
