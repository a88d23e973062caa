"""No password in any output of a doctor who got in, however it is written."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from click.testing import CliRunner

from poolproof.cli.commands import commands

MARK = "s3cr3t"
OUTPUTS = ([], ["-v"], ["--json"], ["--sarif"])
# They take a while, and say no more than the others.
QUICK = ["--ignore", "PP206,PP210,PP401,PP403"]


def shown(url, *options):
    """Return what the doctor says in each of its outputs."""
    said = ""
    for output in OUTPUTS:
        run = CliRunner().invoke(
            commands, ["doctor", url, *output, *options, "--patience", "20"]
        )
        assert run.exception is None or isinstance(run.exception, SystemExit), run
        said += run.output
    return said


@pytest.mark.parametrize("between", ["'\\", "\x1b[2J", "@:/?#%&=", "é😀 \n", '"}$'])
def test_a_password_is_in_no_output(pg, between):
    """The server trusts everybody, and so the whole examination runs."""
    where = f"{pg.host}:{pg.port}/postgres"
    secret = quote(f"{MARK}{between}{MARK}", safe="")
    said = shown(f"postgresql+psycopg2://postgres:{secret}@{where}", *QUICK)
    assert "PP101" in said
    assert MARK not in said


def test_neither_is_one_in_a_parameter_or_the_environment(pg, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", f"{MARK}-of-the-environment")
    where = f"{pg.host}:{pg.port}/postgres"
    for query in (f"password={MARK}", f"sslpassword={MARK}", f"passwrod={MARK}"):
        said = shown(f"postgresql+psycopg2://postgres@{where}?{query}", *QUICK)
        assert MARK not in said


def test_an_application_that_raises_its_url_shows_none(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "raises_its_url.py").write_text(
        f"raise RuntimeError('postgresql://u:{MARK}@h/d')\n"
    )
    run = CliRunner().invoke(commands, ["doctor", "raises_its_url:engine"])
    assert "raises RuntimeError" in run.output
    assert MARK not in run.output


@pytest.mark.parametrize("output", ["--json", "--sarif"])
def test_what_is_blotted_out_leaves_json(pg, output):
    url = f"postgresql+psycopg2://postgres:%22@{pg.host}:{pg.port}/postgres"
    run = CliRunner().invoke(commands, ["doctor", url, output])
    json.loads(run.output)
