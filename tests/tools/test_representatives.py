"""`make test` runs one of those that promise the same; `make soak` the others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
CONFTEST = """
import sys

sys.path.insert(0, {tests!r})
from plugins.representatives import mark_represented

def pytest_collection_modifyitems(items):
    mark_represented(items)
    for item in items:
        print("MARKS", item.nodeid, *(mark.name for mark in item.iter_markers()))
"""
SUITE = """
import pytest

@pytest.fixture(params=["psycopg2", "psycopg", "pg8000"])
def driver(request):
    return request.param

@pytest.fixture(params=["plain", "socket"])
def dbapi(request):
    return request.param

def test_one(driver):
    pass

@pytest.mark.parametrize("row", ["a", "b", "c"])
def test_rows(row, driver):
    pass

def test_both(driver, dbapi):
    pass

@pytest.mark.each
def test_each(driver):
    pass

@pytest.mark.soak
def test_long(driver):
    pass

@pytest.mark.parametrize("row", ["a", "b"])
def test_nothing_of_the_kind(row):
    pass
"""


@pytest.fixture
def marked(tmp_path):
    """Return a function that says which of the tests are kept, left out and long."""
    (tmp_path / "conftest.py").write_text(CONFTEST.format(tests=str(TESTS)))
    (tmp_path / "test_suite.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]")
    ours = {k: v for k, v in os.environ.items() if not k.startswith("POOLPROOF_TEST_")}

    def mark(**environment):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "--collect-only", "-qs"),
                *("-p", "no:randomly", "-W", "ignore", str(tmp_path)),
            ],
            env={**ours, **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        lines = [line.split() for line in done.stdout.splitlines() if "MARKS" in line]
        assert lines, done.stdout + done.stderr
        found = {words[1].partition("::test_")[2]: set(words[2:]) for words in lines}
        kept = [name for name, marks in found.items() if "soak" not in marks]
        left = [name for name, marks in found.items() if "represented" in marks]
        return kept, left, sorted(found.keys() - {*kept, *left})

    return mark


def counted(names):
    return Counter(name.partition("[")[0] for name in names)


def test_one_represents_the_others_and_the_others_are_soaked(marked):
    kept, left, long = marked()
    assert counted(kept) == {
        "one": 1,
        "rows": 3,
        "both": 1,
        "each": 3,
        "nothing_of_the_kind": 2,
    }
    rows = [
        set(name[:-1].partition("[")[2].split("-")) for name in kept if "rows" in name
    ]
    assert set.union(*rows) == {"a", "b", "c", "psycopg2", "psycopg", "pg8000"}
    assert counted(left) == {"one": 2, "rows": 6, "both": 5}
    assert counted(long) == {"long": 3}


def test_who_has_chosen_himself_has_what_he_has_chosen(marked):
    kept, _, _ = marked(POOLPROOF_TEST_DRIVERS="psycopg2,psycopg,pg8000")
    assert counted(kept)["one"] == 3
    assert counted(kept)["rows"] == 9
    assert counted(kept)["both"] == 3


def test_a_second_interpreter_has_one_of_each(marked):
    kept, _, _ = marked(POOLPROOF_TEST_ROWS="one", POOLPROOF_TEST_DRIVERS="x")
    assert counted(kept) == {
        "one": 1,
        "rows": 1,
        "both": 1,
        "each": 3,
        "nothing_of_the_kind": 1,
    }
