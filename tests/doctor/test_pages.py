"""The pages of the checks are those of the table, and each check is written out."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from poolproof.cli.main import main
from poolproof.doctor import application, catalogue, greenlets, live, path, runtime, tls
from poolproof.doctor import server as servers
from poolproof.doctor.catalogue import CHECKS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pages():
    spec = importlib.util.spec_from_file_location(
        "doctor_pages", ROOT / "tools" / "doctor_pages.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_what_the_table_says(pages):
    assert pages.main(["--check"]) == 0


def test_a_page_that_differs_or_is_nobodys_is_seen(
    pages, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(pages, "FOLDER", tmp_path)
    assert pages.main([]) == 0
    assert pages.main(["--check"]) == 0
    (tmp_path / "PP101.md").write_text("other")
    (tmp_path / "PP999.md").write_text("nobody's")
    assert pages.main(["--check"]) == 1
    said = capsys.readouterr().out
    assert "PP101.md" in said
    assert "PP999.md" in said
    assert pages.main([]) == 0
    assert not (tmp_path / "PP999.md").exists()


def test_every_code_is_there_once_in_order_and_whole():
    codes = [check.code for check in CHECKS]
    assert codes == sorted(set(codes))
    for check in CHECKS:
        assert re.fullmatch("PP[1-4][0-9]{2}", check.code)
        for words in (check.looks, check.why, check.fix, check.problems):
            assert words.endswith(".")
        assert check.seconds <= 3


def test_every_check_that_is_written_is_in_the_table():
    written = {
        function
        for module in (servers, path, tls, application, greenlets, runtime, live)
        for function in vars(module).values()
        if callable(function)
        and getattr(function, "__module__", "") == module.__name__
        and re.match("PP[0-9]{3}: ", function.__doc__ or "")
    }
    assert written == {check.run for check in CHECKS}
    for check in CHECKS:
        assert check.run.__doc__.startswith(f"{check.code}: "), check.code
    assert catalogue.CHECKS is CHECKS


def test_the_overview_names_every_option(capsys):
    assert main(["doctor", "--help"]) == 0
    options = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    text = (ROOT / "docs" / "doctor.md").read_text()
    assert [one for one in options - {"--help", "--verbose"} if one not in text] == []
