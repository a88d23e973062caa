"""The page of differences has each difference that a test intends, and real knobs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
DOCS = TESTS.parent / "docs"
PAGE = (DOCS / "differences.md").read_text()

# What each file of tests marked `difference` is about, in the words of the page.
ABOUT = {
    "pool/contract/test_bad_input": "A value of the wrong type",
    "pool/contract/test_dispose": "A disconnect costs the one connection",
    "pool/contract/test_every_bytecode": "An exception at any bytecode",
    "pool/contract/test_failures": "in a listener, or one that somebody keeps",
    "pool/contract/test_fairness": "Callers are served in order of arrival",
    "pool/contract/test_gevent": "a greenlet that is ended",
    "pool/contract/test_hold_warning": "says in its own words who holds",
    "pool/contract/test_interrupt": "An exception at any bytecode (Ctrl-C",
    "pool/contract/test_invalidate": "A disconnect costs the one connection",
    "pool/contract/test_keeper": "a keeper where there is something to look after",
    "pool/contract/test_keeper_postgresql": "where there is something to look after",
    "pool/contract/test_lifetimes": "Connections are closed after ten minutes of rest",
    "pool/contract/test_min_idle": "a keeper where there is something to look after",
    "pool/contract/test_misuse": "A record that is returned twice",
    "pool/contract/test_nested": "When every connection is held by a caller that waits",
    "pool/contract/test_overload": "[newest are served first]",
    "pool/contract/test_pre_ping": "`pool_pre_ping=True` asks only where",
    "pool/contract/test_max_waiting": "refuse at once whoever would be one too many",
    "pool/contract/test_resize": "A pool may be [resized, drained and warmed]",
    "pool/contract/test_timeout_error": "says in its own words who holds",
    "pool/contract/test_waiting": "Callers are served in order of arrival",
}


def rows():
    """Return the last cell of each row of the tables whose last column is the knob."""
    found = []
    for table in re.findall(
        r"^\| what differs .+\n\|[-|]+\n((?:\|.+\n)+)", PAGE, re.MULTILINE
    ):
        found += [line.strip("|").split(" | ") for line in table.splitlines()]
    return found


def marked():
    """Return the files that have a test of an intended difference."""
    return {
        path.relative_to(TESTS).with_suffix("").as_posix()
        for path in TESTS.rglob("test_*.py")
        if re.search(
            r"^(@|pytestmark.*|    )pytest\.mark\.difference",
            path.read_text(),
            re.MULTILINE,
        )
    }


def test_every_intended_difference_is_on_the_page():
    assert marked() <= ABOUT.keys(), "say it in docs/differences.md, and here"


@pytest.mark.parametrize("name", ABOUT)
def test_what_a_test_intends_stands_there(name):
    assert ABOUT[name] in PAGE


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:40])
def test_every_row_says_what_why_and_which_knob(row):
    assert len(row) == 3
    assert all(cell.strip() for cell in row)


def test_every_knob_exists():
    knobs = set(re.findall(r"`(\w+)`", (DOCS / "knobs.md").read_text()))
    for row in rows():
        for name in re.findall(r"`(\w+)=", row[2]):
            assert name in knobs, name
    assert len(rows()) > 15
