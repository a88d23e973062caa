"""The front door: what the first screen says, and that its numbers were measured."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tools"))

import results  # noqa: E402 - found by the line above

README = (CHECKOUT / "README.md").read_text()
PAGES = sorted(
    [
        CHECKOUT / "README.md",
        *(CHECKOUT / "docs").rglob("*.md"),
        *(CHECKOUT / "examples").rglob("*.md"),
    ]
)


def test_it_is_short():
    assert len(README.splitlines()) <= 120


def test_symptom_cause_cure_result_and_commands_come_first_and_in_this_order():
    first_screen = "\n".join(README.splitlines()[:40])
    places = [
        first_screen.index(words)
        for words in (
            "PGRES_TUPLES_OK and no message from the libpq",
            "lost synchronization with server",
            "ResourceClosedError",
            "a pre-ping that hangs",
            "a lock that two workers hold",
            "**Cause**",
            "**Cure:**",
            "poolclass=poolproof.Pool",
            "| one run of |",
            "PieFed 1.6.18",
            "make drill",
            "make test",
        )
    ]
    assert places == sorted(places)


def test_its_results_are_those_that_were_measured():
    assert results.page(README, json.loads(results.RESULTS.read_text())) == README


def test_results_that_differ_are_noticed():
    other = json.loads(results.RESULTS.read_text())
    other["rows"][0]["queue"]["right"] += 1
    assert results.page(README, other) != README


@pytest.mark.parametrize("example", results.EXAMPLES)
def test_every_row_is_of_an_example_that_is_there(example):
    assert (CHECKOUT / "examples" / example / "__main__.py").exists()
    measured = json.loads(results.RESULTS.read_text())["rows"]
    assert example in [row["example"] for row in measured]


def test_what_an_example_prints_is_understood():
    assert results.counts(
        "  73 right\n   1 wrong\n  15 failed\n   0 hung\n"
        "   2 confirmed, but not in the table\n 103 orders in the table, by 3 workers\n"
        "queue: THE FAULT SHOWED\n"
    ) == {"right": 73, "faults": {"wrong": 1, "failed": 15, "confirmed and lost": 2}}
    assert results.counts(
        "     0 of 60 plans made\n  5023 tokens counted, of 92550 spent\n"
        "    84 errors in the log\n    30 heartbeats\n"
        "       and Luigi did not come to an end: tasks hang\n"
    ) == {"right": 0, "faults": {"errors": 84, "hung": "some"}}


def test_what_is_not_understood_is_no_result():
    with pytest.raises(SystemExit, match="not understood"):
        results.counts("Traceback (most recent call last):\n")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_nothing_is_installed_from_an_index_that_does_not_have_it(page):
    assert not re.findall(r'pip install "?poolproof(?!-)', page.read_text())


def extras():
    """Return the names of the project's extras."""
    project = (CHECKOUT / "pyproject.toml").read_text()
    table = project.split("[project.optional-dependencies]")[1].split("\n[")[0]
    return set(re.findall(r"^(\w+) = \[", table, re.MULTILINE))


def test_every_extra_that_is_named_exists():
    for page in PAGES:
        installed = re.findall(
            r'pip install "(?:\.|\S+whl)\[(\S+)\]"', page.read_text()
        )
        for named in installed:
            assert set(named.split(",")) <= extras(), page


def test_no_extra_asks_for_the_package_itself():
    """`maturin develop --extras` looks for it in an index."""
    project = (CHECKOUT / "pyproject.toml").read_text()
    table = project.split("[project.optional-dependencies]")[1].split("\n[")[0]
    assert '"poolproof' not in table


def test_every_driver_has_an_extra():
    assert {"psycopg2", "psycopg", "pg8000", "asyncpg"} <= extras()


def test_no_message_sends_anybody_to_an_index_that_does_not_have_it():
    """What is said where a framework, a driver or a command's package is missing."""
    for path in (CHECKOUT / "python" / "poolproof").rglob("*.py"):
        said = path.read_text()
        assert not re.search(r'pip install "?poolproof|"poolproof\[', said), path


def test_what_a_message_asks_for_is_what_the_extras_ask_for():
    project = (CHECKOUT / "pyproject.toml").read_text()
    for name in ("main", "drill"):
        path = CHECKOUT / "python" / "poolproof" / "cli" / f"{name}.py"
        asked = re.findall(r'"([\w\[\]-]+>=[\d.]+)"', path.read_text())
        assert asked
        for requirement in asked:
            # Alone, or where there is a wheel.
            assert re.search(rf'"{re.escape(requirement)}[";]', project), requirement


@pytest.mark.parametrize("page", ["README.md", "docs/knobs.md"])
def test_what_a_look_cannot_see_is_said_plainly(page):
    """tests/pool/test_in_flight.py shows both the limit and the sure way."""
    said = (CHECKOUT / page).read_text()
    assert "still on its way" in said
    assert re.search(r"1 of 216[^.]*psycopg", said)
    assert 'pool_pre_ping="always"' in said


def test_where_session_state_belongs_is_said():
    said = (CHECKOUT / "docs" / "lifetimes.md").read_text()
    (section,) = re.findall(r"## State of the session\n(.+?)\n## ", said, re.DOTALL)
    for words in ("advisory locks", "temporary tables", "LISTEN", "prepared", "SET"):
        assert words in section
    for cure in ("detach()", "engine of its own", "lease"):
        assert cure in section


def test_every_package_that_the_two_commands_install_is_named():
    makefile = (CHECKOUT / "Makefile").read_text()
    wanted = {
        package
        for target in ("drill", "test")
        for line in re.findall(rf"^{target}:.+\n((?:\t.+\n)+)", makefile, re.MULTILINE)
        for packages in re.findall(r"system_packages\.py ([\w -]+)", line)
        for package in packages.split()
    }
    assert {"libssl-dev", "pkg-config"} <= wanted, "OpenSSL's headers are found by it"
    for package in wanted:
        assert f"`{package}`" in README
