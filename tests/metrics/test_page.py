"""The page and the dashboard are what the table says, and ask for what there is."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

from metrics.names import EVERY
from poolproof.metrics.table import TABLE

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location(
        "metrics_page", ROOT / "tools" / "metrics_page.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_and_the_dashboard_are_what_the_table_says(tool):
    assert tool.PAGE.read_text() == tool.page()
    assert tool.DASHBOARD.read_text() == tool.dashboard()
    assert tool.main(["--check"]) == 0


def test_the_page_has_every_name_and_no_other(tool):
    text = tool.PAGE.read_text()
    rows = re.findall(r"^\| `(poolproof_\w+)` \|", text, re.MULTILINE)
    assert set(rows) == set(EVERY)
    for metric in TABLE:
        assert f"`{metric.otel}`" in text
    ends = r"_(?:bucket|count|sum)$"
    asked = {re.sub(ends, "", name) for name in re.findall(r"poolproof_\w+", text)}
    assert asked - {"poolproof_flask"} <= set(EVERY)


def test_the_dashboard_asks_for_every_name_and_no_other(tool):
    body = json.loads(tool.DASHBOARD.read_text())
    asked = set()
    for panel in body["panels"]:
        for target in panel.get("targets", []):
            asked |= set(re.findall(r"poolproof_\w+", target["expr"]))
    assert {name.removesuffix("_bucket") for name in asked} == set(EVERY)
    ids = [panel["id"] for panel in body["panels"]]
    assert len(set(ids)) == len(ids)


def test_no_two_panels_stand_in_one_place(tool):
    taken = set()
    for panel in json.loads(tool.DASHBOARD.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {
            (at["x"] + right, at["y"] + down)
            for right in range(at["w"])
            for down in range(at["h"])
        }
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells
