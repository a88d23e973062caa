"""The page of symptoms says of each error what the code makes of it."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import poolproof
from poolproof.drill.incidents import INCIDENTS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "symptoms.md"
ERROR = re.compile(r"^([a-z][\w.]*)\.([A-Z]\w+): (.+)$", re.MULTILINE)
NOT_OURS = "What is not the pool's to cure"
FAULTS = {fault.value for fault in poolproof.Fault}


def sections():
    """Return each section that has a cure, by its title."""
    parts = re.split(r"^## (.+)$", PAGE.read_text(), flags=re.MULTILINE)[1:]
    found = dict(zip(parts[::2], parts[1::2], strict=True))
    del found[NOT_OURS]
    return found


SECTIONS = sections()


def texts(body):
    blocks = re.findall(r"```text\n(.*?)```", body, re.DOTALL)
    return [match for block in blocks for match in ERROR.findall(block)]


def line(body, head):
    (found,) = re.findall(rf"^- \*\*{head}\*\*(.+)$", body, re.MULTILINE)
    return found


@pytest.mark.parametrize("title", SECTIONS)
def test_every_symptom_has_cause_cure_and_an_incident_of_the_drill(title):
    body = SECTIONS[title]
    assert line(body, "Cause.")
    assert "`" in line(body, "Cure.")
    shown = line(body, "Shown by")
    named = re.findall(r"--incident ([\w-]+)", shown)
    assert named
    assert set(named) <= set(INCIDENTS)


@pytest.mark.parametrize("title", [t for t, body in SECTIONS.items() if texts(body)])
def test_the_fault_table_knows_each_text_as_the_page_says(title):
    body = SECTIONS[title]
    found = set()
    for module, kind, text in texts(body):
        error = getattr(importlib.import_module(module), kind)(text)
        found.add(str(poolproof.classify(error).fault.value))
    found.discard("none")
    said = re.findall(r"^- \*\*To the pool\*\*(.+)$", body, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", "".join(said))) & FAULTS == found


def test_every_incident_of_services_and_of_silence_is_some_symptoms():
    named = set(re.findall(r"--incident ([\w-]+)", PAGE.read_text()))
    assert {"fork", "gunicorn", "celery", "luigi", "hang"} <= named


def test_the_symptoms_of_the_front_door_are_on_the_page():
    readme = (PAGE.parents[1] / "README.md").read_text().splitlines()[2]
    page = PAGE.read_text()
    for text in re.findall(r"`([^`]+)`", readme):
        assert text in page
