"""The doctor's own process is none of the application's, and counts nowhere."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

APP = """
import os, sys
from flask import Flask
from sqlalchemy import create_engine, text
import poolproof
from poolproof.integrations import flask as integration

engine = create_engine({url!r}, poolclass=poolproof.Pool)
app = Flask("shop")
integration.init_app(app, engine)
with engine.connect() as connection:  # as many do where they are imported
    connection.execute(text("select 1"))
if os.environ.get("TEST_SERVES"):
    sys.exit(0)
"""
FLASK = ("-m", "flask", "--app", "shop", "poolproof", "doctor")


@pytest.fixture
def run(tmp_path, pg_url):
    url = pg_url("psycopg2").render_as_string(hide_password=False)
    (tmp_path / "shop.py").write_text(APP.format(url=url))
    place = tmp_path / "metrics"
    place.mkdir()

    def start(*arguments, **environment):
        done = subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, "POOLPROOF_METRICS_DIR": str(place), **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        return done, list(place.glob("*.metrics"))

    return start


@pytest.mark.parametrize(
    "command",
    [("-m", "poolproof", "doctor", "shop:engine", "--patience=20"), FLASK],
    ids=["poolproof", "flask"],
)
def test_it_leaves_no_file_of_metrics(run, command):
    done, found = run(*command)
    assert "PP" in done.stdout, done.stderr
    assert found == []


def test_the_application_itself_leaves_one(run):
    _done, found = run("shop.py", TEST_SERVES="1")
    assert len(found) == 1
