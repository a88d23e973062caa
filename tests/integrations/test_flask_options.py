"""What a Flask application is configured with, what it shows of that, and 503."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import pytest
from sqlalchemy import exc

import poolproof
from plugins.flasks import hold_all, installed, with_a_route
from poolproof import _log
from poolproof.doctor.catalogue import CHECKS
from poolproof.integrations import flask as integration
from poolproof.pool import knobs
from poolproof.pool.settings import KEEP_ALIVE


def test_an_argument_goes_before_the_configuration_and_that_before_the_environment(
    app, monkeypatch
):
    for key in ("POOL_SIZE", "MAX_OVERFLOW", "POOL_TIMEOUT"):
        monkeypatch.setenv(f"POOLPROOF_{key}", "1")
    monkeypatch.setenv("POOLPROOF_POOL_USE_LIFO", "yes")
    monkeypatch.setenv("POOLPROOF_KEEP_ALIVE", "9, 8, 7")
    monkeypatch.setenv("POOLPROOF_HOLD_TIMEOUT", "none")
    app.config["POOLPROOF_MAX_OVERFLOW"] = 2
    app.config["POOLPROOF_POOL_TIMEOUT"] = 2
    db = installed(app, pool_timeout=3)
    with app.app_context():
        pool = db.engine.pool
        assert (pool.size(), pool._max_overflow, pool.timeout()) == (1, 2, 3)
        assert pool._lifo is True
        assert pool.settings.keep_alive == (9, 8, 7)
        assert pool.settings.hold_timeout is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("POOLPROOF_POOL_SIZE", "5"),
        ("POOLPROOF_POOL_SIZE", True),
        ("POOLPROOF_MAX_OVERFLOW", 1.5),
        ("POOLPROOF_POOL_TIMEOUT", "soon"),
        ("POOLPROOF_POOL_USE_LIFO", 1),
        ("POOLPROOF_POOL_PRE_PING", "sometimes"),
        ("POOLPROOF_HOLD_TIMEOUT", 0),
        ("POOLPROOF_KEEP_ALIVE", (1, 2)),
        ("POOLPROOF_POOL_RECYCLE", "1h"),
        ("POOLPROOF_ANSWER_503", "yes"),
        ("POOLPROOF_RETRY_AFTER", 0),
        ("POOLPROOF_POOLSIZE", 5),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_key(app, key, value):
    app.config[key] = value
    with pytest.raises(exc.ArgumentError, match=rf"^{key} "):
        integration.init_app(app)
    assert "poolproof" not in app.extensions


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("POOLPROOF_POOL_SIZE", "many"),
        ("POOLPROOF_POOL_USE_LIFO", "perhaps"),
        ("POOLPROOF_ANSWER_503", "2"),
        ("POOLPROOF_RETRY_AFTER", "1.5"),
    ],
)
def test_a_wrong_variable_is_refused_by_its_name(app, monkeypatch, key, value):
    monkeypatch.setenv(key, value)
    with pytest.raises(exc.ArgumentError, match=rf"^{key} \(environment\)"):
        integration.init_app(app)


def test_two_values_that_do_not_go_together_are_refused_by_their_keys(
    app, monkeypatch, order
):
    monkeypatch.setenv("POOLPROOF_MIN_IDLE", "20")
    app.config["POOLPROOF_POOL_SIZE"] = 10
    context = app.app_context()
    with pytest.raises(exc.ArgumentError) as caught:  # noqa: PT012 - some come later
        installed(app, order)
        try:
            context.push()
        finally:
            context.pop()
    text = str(caught.value)
    assert "POOLPROOF_MIN_IDLE (environment)" in text
    assert "POOLPROOF_POOL_SIZE (configuration)" in text
    assert "min_idle is 20 and pool_size is 10" in text


def test_an_empty_value_is_none(app, monkeypatch):
    monkeypatch.setenv("POOLPROOF_POOL_SIZE", "")
    monkeypatch.setenv("POOLPROOF_ANSWER_503", " ")
    app.config["POOLPROOF_HOLD_TIMEOUT"] = ""
    db = installed(app)
    with app.app_context():
        assert db.engine.pool.size() == 5
        assert db.engine.pool.settings.hold_timeout is None


def test_a_mistyped_variable_is_warned_of_by_name(app, monkeypatch, caplog):
    monkeypatch.setenv("POOLPROOF_POOLSIZE", "5")
    monkeypatch.setenv("POOLPROOF_FRESHNESS", "5")
    monkeypatch.setenv("POOLPROOF_TEST_DRIVERS", "psycopg2")
    for known in ("POOLPROOF", "POOLPROOF_URL", "POOLPROOF_DRILL_URL"):
        monkeypatch.setenv(known, "")
    installed(app)
    fresh, size = caplog.messages
    assert size.startswith("poolproof: POOLPROOF_POOLSIZE (environment) is not known")
    assert size.endswith("did you mean POOLPROOF_POOL_SIZE?")
    assert "POOLPROOF_FRESHNESS" in fresh
    assert "there are: POOLPROOF_ANSWER_503, " in fresh
    done = app.test_cli_runner().invoke(args=["poolproof", "doctor"])
    assert "did you mean POOLPROOF_POOL_SIZE?" in done.output
    assert done.exit_code == 0


def test_an_exhausted_pool_is_answered_with_503_where_that_is_asked_for(driven):
    db = with_a_route(driven, answer_503=True, retry_after=4)
    driven.register_error_handler(503, lambda error: ("full", 503, error.get_headers()))
    client = driven.test_client()
    with driven.app_context(), hold_all(db):
        answer = client.get("/")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "4"
    assert answer.text == "full"
    assert client.get("/").text == "1"


def test_what_is_answered_with_503_is_explained_in_the_log_now_and_then(
    app, caplog, monkeypatch
):
    db = with_a_route(app, answer_503=True)
    client = app.test_client()
    moment = time.monotonic()
    with app.app_context(), hold_all(db):
        for seconds in (0, 1, 2, 11):
            now = moment + seconds
            monkeypatch.setattr(_log.time, "monotonic", lambda now=now: now)
            assert client.get("/").status_code == 503
    words = "poolproof: a request was answered with 503: pool "
    first, second = (one for one in caplog.messages if one.startswith(words))
    for line in (first, second):
        assert re.search(r"gave no connection within \d+\.\d+ s", line)
    assert "more like it" not in first
    assert second.endswith(" (2 more like it since the last line)")


def test_an_exhausted_pool_raises_by_default(app):
    db = with_a_route(app)
    with app.app_context(), hold_all(db), pytest.raises(poolproof.PoolTimeout):
        app.test_client().get("/")


def test_the_doctor_prints_what_the_pools_see(driven, driver, order):
    url = driven.config["SQLALCHEMY_DATABASE_URI"].set(password="secret")  # noqa: S106
    driven.config["SQLALCHEMY_DATABASE_URI"] = url
    installed(driven, order, pool_size=3)
    done = driven.test_cli_runner().invoke(args=["poolproof", "doctor"])
    assert done.exit_code == 0, done.output
    for words in (
        f"default: postgresql+{driver}://",
        f"reports: postgresql+{driver}://",
        "pool: poolproof.Pool",
        "pool_size = 3  # pool_size (argument of init_app)",
        "max_overflow = 10  # default",
        f"keep_alive = {','.join(map(str, KEEP_ALIVE))}  # default",
        "pool_reset_on_return = rollback  # default",
        "idle 1, in use 0, waiting 0",
        "checkouts 1",
        "answered in ",
        "backend pid ",
    ):
        assert words in done.output
    assert ":***@" in done.output
    assert "secret" not in done.output


def test_the_doctor_runs_every_check_on_every_engine(app, observer):
    installed(app, pool_size=3)
    invoke = app.test_cli_runner().invoke
    done = invoke(args=["poolproof", "doctor", "--workers", "2", "--threads", "2"])
    assert done.exit_code == 0, done.output
    for check in CHECKS:
        assert done.output.count(f" {check.code} ") >= 2, check.code
    # Two engines of one server share its slots.
    assert "2 workers × 26 (pool_size + max_overflow of 2 pools) = 52" in done.output
    assert "fine    PP302" in done.output
    many = invoke(args=["poolproof", "doctor", "--workers", "50"])
    assert many.exit_code == 3
    assert "error   PP101 slots: 50 workers × 26" in many.output


def test_the_doctor_says_where_each_setting_is_from(app, monkeypatch):
    dsn = "postgresql://u:secret@h/d"
    url = app.config["SQLALCHEMY_DATABASE_URI"].update_query_dict(
        {"plugin": "poolproof", "poolproof_hold_timeout": "9"}
    )
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"max_overflow": 3, "control_dsn": dsn}
    app.config["POOLPROOF_POOL_TIMEOUT"] = 2
    monkeypatch.setenv("POOLPROOF_MAX_IDLE", "none")
    installed(app)
    done = app.test_cli_runner().invoke(args=["poolproof", "doctor"])
    for line in (
        "hold_timeout = 9  # URL",
        "max_overflow = 3  # create_engine",
        "pool_timeout = 2  # POOLPROOF_POOL_TIMEOUT (configuration)",
        "max_idle = none  # POOLPROOF_MAX_IDLE (environment)",
        "pool_size = 5  # default",
        "control_dsn = ***  # create_engine",
    ):
        assert f"    {line}\n" in done.output, done.output
    # Every knob is there, and no other.
    shown = re.findall(r"^    (\w+) = .*  # .+$", done.output, re.MULTILINE)
    assert shown[: len(knobs.KNOBS)] == list(knobs.KNOBS)
    assert "secret" not in done.output


def test_the_doctor_names_who_holds(app):
    db = installed(app)
    with app.app_context(), db.engine.connect():
        done = app.test_cli_runner().invoke(args=["poolproof", "doctor"])
    assert "held by MainThread (process " in done.output


def test_the_doctor_shows_no_tail_of_a_password(app):
    url = "postgresql+psycopg2://u:p@s3cr3t@h.invalid/d"
    app.config.update(SQLALCHEMY_DATABASE_URI=url, SQLALCHEMY_BINDS={})
    installed(app)
    done = app.test_cli_runner().invoke(args=["poolproof", "doctor"])
    assert done.exit_code == 1
    assert "s3cr3t" not in done.output
    assert "%40" in done.output


def test_the_doctor_fails_where_no_connection_is_to_be_had(app, refusing):
    app.config["SQLALCHEMY_BINDS"] = {"away": refusing.url("psycopg2")}
    installed(app, pool_timeout=0.2, checkout_timeout=0.5)
    done = app.test_cli_runner().invoke(args=["poolproof", "doctor"])
    assert done.exit_code == 1
    assert "NO CONNECTION" in done.output
    assert "checkouts 0, waits for a slot 0" in done.output.partition("away:")[2]


def test_the_command_line_shows_a_wrong_option_in_one_sentence(tmp_path):
    (tmp_path / "app.py").write_text(
        "from flask import Flask\n"
        "from flask_sqlalchemy import SQLAlchemy\n"
        "from poolproof.integrations import flask\n"
        "app = Flask('shop')\n"
        "app.config['SQLALCHEMY_DATABASE_URI'] = 'postgresql+psycopg2://h/d'\n"
        "flask.init_app(app, SQLAlchemy(app))\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "flask", "poolproof", "doctor"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "POOLPROOF_MIN_IDLE": "20"},
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("Error: POOLPROOF_MIN_IDLE (environment) refused: ")
