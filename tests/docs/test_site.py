"""The pages as they are built: complete, and readable where screens are narrow."""

from __future__ import annotations

import importlib
import re
import runpy
from pathlib import Path

import pytest

import poolproof
from poolproof.faults import table

DOCS = Path(__file__).resolve().parents[2] / "docs"
API = (DOCS / "api.md").read_text()
NOX = (DOCS.parent / "noxfile.py").read_text()


def documented():
    return set(re.findall(r"^\.\. auto\w+:: ([\w.]+)$", API, re.MULTILINE))


def test_every_public_name_is_in_the_reference_and_no_other():
    ours = {f"poolproof.{name}" for name in poolproof.__all__ if name[0] != "_"}
    assert {name for name in documented() if name.count(".") == 1} == ours


def integration(name):
    """Import one where it is wanted: the frameworks take their time."""
    return importlib.import_module(f"poolproof.integrations.{name}")


@pytest.mark.parametrize("name", ["celery", "flask", "luigi"])
def test_so_is_every_public_name_of_the_integrations(name):
    module = integration(name)
    ours = {f"{module.__name__}.{name}" for name in module.__all__}
    assert ours <= documented()


def test_so_is_every_hook_of_gunicorn():
    (members,) = re.findall(r"integrations\.gunicorn\n +:members: (.+)", API)
    assert set(members.split(", ")) == set(integration("gunicorn").__all__)


def test_what_registers_rows_of_the_table_is_there_too():
    assert callable(table.register)
    assert "poolproof.faults.register" in documented()


def test_blocks_can_be_copied_and_sources_are_linked():
    configured = runpy.run_path(str(DOCS / "conf.py"))
    assert {"sphinx_copybutton", "sphinx.ext.viewcode"} <= set(configured["extensions"])
    prompt = re.compile(configured["copybutton_prompt_text"])
    assert prompt.match("$ make drill")


def test_a_narrow_screen_gets_each_row_as_a_card():
    configured = runpy.run_path(str(DOCS / "conf.py"))
    for name in (*configured["html_css_files"], *configured["html_js_files"]):
        assert (DOCS / "_static" / name).exists()
    css = (DOCS / "_static" / "poolproof.css").read_text()
    assert "attr(data-column)" in css
    assert "dataset.column" in (DOCS / "_static" / "tables.js").read_text()


def test_make_docs_says_where_the_page_is():
    (session,) = re.findall(r"\ndef docs\(.+?\n\n\n", NOX, re.DOTALL)
    assert '"-W"' in session
    assert "session.log" in session
    assert "index.html" in session


def test_the_landing_page_has_code_a_drawing_and_every_page():
    index = (DOCS / "index.md").read_text()
    assert "poolclass=poolproof.Pool" in index
    (drawing,) = re.findall(r"!\[[^\]]{40,}\]\((\S+\.svg)\)", index)
    assert (DOCS / drawing).exists()
    linked = set(re.findall(r"\[\]\((\S+)\.md\)", index))
    pages = {
        page.relative_to(DOCS).with_suffix("").as_posix()
        for page in DOCS.rglob("*.md")
        if "_build" not in page.parts
        and "decisions" not in page.parts
        and not (page.parent.name == "doctor" and page.stem.startswith("PP"))
    }
    assert pages - {"index"} <= linked
