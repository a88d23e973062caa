"""SARIF 2.1.0 by the names and values that its schema has."""

from __future__ import annotations

import json

import pytest

from poolproof.cli.main import main
from poolproof.doctor.catalogue import CHECKS

# Of the standard's schema: the names that each object may have, and those it must.
LOG = ({"$schema", "version", "runs"}, {"version", "runs"})
RUN = (
    {
        "tool",
        "invocations",
        "originalUriBaseIds",
        "columnKind",
        "results",
        "properties",
    },
    {"tool"},
)
DRIVER = ({"name", "semanticVersion", "rules"}, {"name"})
RULE = (
    {
        *("id", "name", "shortDescription", "fullDescription", "help"),
        *("defaultConfiguration", "properties"),
    },
    {"id"},
)
RESULT = (
    {
        *("ruleId", "ruleIndex", "kind", "level", "message", "locations"),
        *("partialFingerprints", "properties"),
    },
    {"message"},
)
PHYSICAL = ({"artifactLocation", "region"}, {"artifactLocation"})
PATIENT = ("--patience", "20")  # the machine may be busy
KINDS = {"notApplicable", "pass", "fail", "review", "open", "informational"}
LEVELS = {"none", "note", "warning", "error"}


def check(one, shape):
    may, must = shape
    assert must <= set(one) <= may, one


@pytest.fixture
def log(pg_url, capsys):
    text = pg_url("psycopg2").render_as_string(hide_password=False)
    assert main(["doctor", text, *PATIENT, "--sarif", "--workers", "50"]) == 3
    return json.loads(capsys.readouterr().out)


def test_the_log_has_the_standards_shape(log):
    check(log, LOG)
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-2.1.0.json")
    (run,) = log["runs"]
    check(run, RUN)
    driver = run["tool"]["driver"]
    check(driver, DRIVER)
    for rule in driver["rules"]:
        check(rule, RULE)
        assert rule["defaultConfiguration"]["level"] in LEVELS
        for text in ("shortDescription", "fullDescription", "help"):
            assert rule[text]["text"]
    assert run["invocations"] == [{"executionSuccessful": True}]
    assert run["columnKind"] in {"utf16CodeUnits", "unicodeCodePoints"}
    base = run["originalUriBaseIds"]["SRCROOT"]["uri"]
    assert base.startswith("file:///")
    assert base.endswith("/")


def test_every_result_leads_to_its_rule_and_has_a_place(log):
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == [one.code for one in CHECKS]
    assert run["results"]
    for result in run["results"]:
        check(result, RESULT)
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["kind"] in KINDS
        assert result["level"] in LEVELS
        # The standard: a level other than "none" is of a kind "fail" alone.
        assert (result["level"] == "none") == (result["kind"] != "fail")
        assert result["message"]["text"]
        for place in result["locations"]:
            assert place["logicalLocations"][0]["name"]
            if "physicalLocation" in place:
                check(place["physicalLocation"], PHYSICAL)
                assert place["physicalLocation"]["region"]["startLine"] >= 1
    levels = {one["ruleId"]: one["level"] for one in run["results"]}
    assert levels["PP101"] == "error"
    assert levels["PP108"] == "none"


def test_a_finding_has_the_same_fingerprint_in_each_run(log, pg_url, capsys):
    text = pg_url("psycopg2").render_as_string(hide_password=False)
    main(["doctor", text, *PATIENT, "--sarif"])
    again = json.loads(capsys.readouterr().out)
    prints = [
        {one["ruleId"]: one["partialFingerprints"] for one in run["results"]}
        for run in (log["runs"][0], again["runs"][0])
    ]
    assert prints[0] == prints[1]
