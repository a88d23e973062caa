"""`make test` runs all that it has, and says what failed."""

from __future__ import annotations

import itertools
import re
import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]

NOXFILE = """
import sys

import nox

sys.path.insert(0, {tools!r})
from steps import Steps

nox.options.sessions = ["first", "second"]


@nox.session(python=False)
def first(session):
    with Steps(session) as steps:
        steps.run("{command}", external=True)
        steps.run("touch", "{place}/step", external=True)


@nox.session(python=False)
def second(session):
    session.run("touch", "{place}/session", external=True)
"""


def run_nox(place, command, *options):
    noxfile = place / "noxfile.py"
    tools = str(CHECKOUT / "tools")
    noxfile.write_text(NOXFILE.format(tools=tools, place=place, command=command))
    return subprocess.run(
        [CHECKOUT / "tools" / "bootstrap", "nox", "--noxfile", noxfile, *options],
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_comes_after_a_failure_runs_and_the_end_names_what_failed(tmp_path):
    done = run_nox(tmp_path, "false")
    assert done.returncode == 1
    assert (tmp_path / "step").exists(), "the rest of the session did not run"
    assert (tmp_path / "session").exists(), "the session after it did not run"
    assert "1 of 2 steps failed: false" in done.stderr
    assert "* first: aborted" in done.stderr
    assert "* second: success" in done.stderr


def test_side_by_side_all_run_and_the_end_names_what_failed(tmp_path):
    """As `make test` runs them; each one's output stands together."""
    done = run_nox(tmp_path, "false", "--parallel=2", "--allow-parallel")
    assert done.returncode == 1
    assert (tmp_path / "step").exists(), "the rest of the session did not run"
    assert (tmp_path / "session").exists(), "the session beside it did not run"
    _, _, rest = done.stdout.partition(" first: aborted")
    block, _, _ = rest.partition("==========\n")[2].partition("==========")
    assert "1 of 2 steps failed: false" in block
    assert "* first: aborted" in done.stderr
    assert "* second: success" in done.stderr


def test_where_nothing_fails_nothing_is_said_of_failures(tmp_path):
    done = run_nox(tmp_path, "true")
    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stderr


def test_no_session_of_make_test_ends_at_its_first_failed_step():
    """`session.run` twice in one session: the second is not run after a failure."""
    for name in ("rust", "lint", "typing", "tests"):
        assert "Steps(session) as steps" in body_of(name), name


def test_nothing_runs_beside_the_session_of_all_tests():
    """Some of them measure time, or take what all processes share."""
    assert "allow_parallel" not in body_of("tests").partition("def tests(")[0]
    assert "mark.alone" not in body_of("matrix")
    assert "not alone" in body_of("matrix")


def test_what_make_test_leaves_out_is_soaked():
    """What is represented by another is marked as soak, too."""
    chosen = re.compile(r'"-m", "([a-z() ]+)"[,)]')
    soaked = [one for one in chosen.findall(body_of("soak")) if one != "soak"]
    for alone, soak, represented in itertools.product([False, True], repeat=3):
        left_out = soak or represented
        marks = {"alone": alone, "soak": left_out, "represented": represented}
        expressions = soaked if left_out else chosen.findall(body_of("tests"))
        chooses = [eval(one, dict(marks)) for one in expressions]  # noqa: S307 - ours
        assert sum(chooses) == 1, marks


def body_of(name):
    """Return the source of a session, from its decorator's arguments on."""
    sessions = (CHECKOUT / "noxfile.py").read_text().split("@nox.session")[1:]
    (body,) = [one for one in sessions if f"\ndef {name}(" in one]
    return body
