"""``poolproof doctor``, as a person runs it, on good input and bad."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys

import pytest

from poolproof.cli import main as command

APP = """
from sqlalchemy import create_engine
import poolproof
print("this is printed at import")
engine = create_engine({url!r}, poolclass=poolproof.Pool, pool_size=3)
nothing = 5
class Service:
    database = engine
def make():
    return engine
"""


SECRET = "s3cret-wrong"  # noqa: S105 - of nobody


_spellings = itertools.count()


def main(arguments):
    """Run it; the machine may be busy, and its bounds in time are no subject here."""
    if arguments[-1] == "--usual":
        return command.main(arguments[:-1])
    return command.main([*arguments, "--patience", "20"])


FLASK = """
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import scoped_session, sessionmaker
db = SQLAlchemy()
def create_app():
    app = Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = {url!r}
    db.init_app(app)
    return app
app = create_app()
made = sessionmaker(create_engine({url!r}))
scoped = scoped_session(made)
slow = create_async_engine({url!r}.partition("?")[0].replace("psycopg2", "asyncpg"))
"""


@pytest.fixture
def url(pg_url):
    return pg_url("psycopg2").render_as_string(hide_password=False)


@pytest.fixture
def app(url, tmp_path, monkeypatch):
    """Write an application into the current folder; return its module's name.

    Its server's name is spelled as in no other test: engines of these may live yet.
    """
    bits = next(_spellings)
    name = "".join(
        one.upper() if bits >> place & 1 else one
        for place, one in enumerate("localhost")
    )
    url = url.replace("127.0.0.1", name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"app_{tmp_path.name.replace('-', '_')}"

    def write(text=APP, name=name):
        (tmp_path / f"{name}.py").write_text(text.format(url=url))
        return name

    yield write
    for module in [one for one in sys.modules if one.startswith(("app_", "broken_"))]:
        del sys.modules[module]


def codes(output):
    return [
        word
        for line in output.splitlines()
        for word in line.split()[1:2]
        if word.startswith("PP")
    ]


def test_the_worst_stands_first_and_the_rest_is_one_line_each(url, capsys):
    assert main(["doctor", url, "--workers", "50"]) == 3
    head, _, *lines, _, sum_ = capsys.readouterr().out.splitlines()
    assert "PostgreSQL 1" in head
    words = [line.split()[0] for line in lines if not line.startswith(" ")]
    order = ["error", "warning", "note", "skipped", "fine"]
    assert words == sorted(words, key=order.index)
    assert lines[0].startswith("error   PP101 slots: 50 workers × 15")
    assert lines[1].startswith("        | ")
    first_fine = next(i for i, line in enumerate(lines) if line.startswith("fine"))
    assert all(line.startswith("fine") for line in lines[first_fine:])
    assert "1 error" in sum_


def test_the_exit_status_is_the_severity(url, role, url_of, capsys):
    assert main(["doctor", url]) == 0
    read_only = url_of(role("default_transaction_read_only = on"))
    text = read_only.render_as_string(hide_password=False)
    assert main(["doctor", text]) == 1
    assert main(["doctor", text, "--ignore", "PP108"]) == 0
    assert main(["doctor", text, "--workers", "50"]) == 3
    assert main(["doctor", text, "--workers", "50", "--ignore", "pp101,PP108"]) == 0
    assert "2 ignored" in capsys.readouterr().out


def test_what_was_skipped_for_one_reason_is_one_line(url, capsys):
    main(["doctor", url])
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith("skipped")]
    (line,) = [line for line in lines if "it looks at an application" in line]
    assert line.startswith("skipped PP3")
    assert line.count("PP3") >= 10
    every = sum(line.count("PP") for line in lines)
    assert f"{every} skipped" in out.splitlines()[-1]
    main(["doctor", url, "-v"])
    out = capsys.readouterr().out
    assert out.count("it looks at an application") == line.count("PP3")


def test_json_has_every_check_with_its_state(url, capsys):
    assert main(["doctor", url, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    states = {one["code"]: one["state"] for one in report["findings"]}
    assert states["PP108"] == "fine"
    assert states["PP103"] == "found"
    assert report["server"].startswith("1")
    assert report["seconds"] < 100
    for one in report["findings"]:
        assert (one["severity"] is None) == (one["state"] != "found")


def test_an_application_is_examined_with_what_it_prints_apart(app, capsys):
    name = app()
    assert main(["doctor", f"{name}:engine", "--json", "--workers", "2"]) in (0, 1)
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert "this is printed at import" in err
    slots = next(one for one in report["findings"] if one["code"] == "PP101")
    assert "2 workers × 13 (pool_size + max_overflow) = 26" in slots["summary"]
    for path in ("Service.database", "make()"):
        assert main(["doctor", f"{name}:{path}", "--json"]) in (0, 1)


@pytest.mark.parametrize("what", ["app", "create_app()", "made", "scoped", "slow"])
def test_whatever_has_an_engine_will_do(app, what, capsys):
    name = app(FLASK)
    quick = ("--ignore", "PP206,PP308")
    assert main(["doctor", f"{name}:{what}", "--json", *quick]) in (0, 1)
    report = json.loads(capsys.readouterr().out)
    assert report["subject"].startswith(f"{name}:{what}, postgresql+")
    states = {one["code"]: one["state"] for one in report["findings"]}
    assert (states["PP108"], states["PP301"]) == ("fine", "found")


def test_an_extension_without_its_application_is_told_to_name_that(app, capsys):
    name = app(FLASK)
    assert main(["doctor", f"{name}:db"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "app:app or app:create_app()" in err


def test_every_engine_of_an_application_counts_in_the_sum(app, capsys):
    more = "other = create_engine({url!r}, pool_size=4, max_overflow=0)\n"
    name = app(APP + more)
    assert main(["doctor", f"{name}:engine", "--json"]) in (0, 1)
    findings = json.loads(capsys.readouterr().out)["findings"]
    slots = next(one for one in findings if one["code"] == "PP101")
    assert "× 17 (pool_size + max_overflow of 2 pools) = 17" in slots["summary"]


def test_a_poolers_console_is_told_from_a_server(pooler, capsys):
    url = pooler().url.set(drivername="postgresql+psycopg2", database="pgbouncer")
    assert main(["doctor", url.render_as_string(hide_password=False)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "or a pooler's console?" in err


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("broken_nowhere:engine", "there is no module broken_nowhere"),
        ("{app}:nothing", "no engine but a int; try {app}:engine"),
        ("{app}:absent", "has no absent; try {app}:engine"),
        ("{app}:nothing()", "cannot be called"),
        ("{app}", "module:engine"),
        ("mysql://u:s3cret@h/d", "PostgreSQL"),
        ("postgresql://u:s3cret@h:x/d", "not a database URL"),
        ("postgresql+nodriver://u:s3cret@h/d", "no engine can be made"),
        ("postgresql://u:s3cret@s3cret@h/d", "%40"),
        ("postgresql://u@h:5432/d?password=@s3cret", "%40"),
    ],
)
def test_a_wrong_target_is_one_line_that_says_what_to_try(app, target, says, capsys):
    name = app()
    assert main(["doctor", target.format(app=name)]) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if "printed at import" not in line]
    assert (out, len(lines)) == ("", 1)
    assert says.format(app=name) in lines[0]
    assert "s3cret" not in err


def test_a_module_that_raises_is_one_line_and_a_traceback_with_v(app, capsys):
    name = app("raise RuntimeError('no configuration')", name="broken_module")
    assert main(["doctor", f"{name}:engine"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "raises RuntimeError" in err
    assert main(["doctor", f"{name}:engine", "-v"]) == 2
    assert "no configuration" in capsys.readouterr().err
    missing = app("import a_package_that_is_missing", name="broken_import")
    assert main(["doctor", f"{missing}:engine"]) == 2
    assert "a_package_that_is_missing" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["psycopg2", "psycopg", "pg8000", "asyncpg"])
def test_a_server_that_refuses_is_one_line(refusing, name, capsys):
    url = refusing.url(name).set(password=SECRET)
    text = url.render_as_string(hide_password=False)
    assert main(["doctor", text]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "check host and port" in err
    assert "s3cret" not in err


def test_a_server_that_never_answers_takes_less_than_the_whole_time(deaf, capsys):
    text = deaf.url("psycopg2").render_as_string(hide_password=False)
    assert main(["doctor", text, "--usual"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "has not answered within 2.5 s" in err
    assert "firewall" in err


@pytest.mark.parametrize("name", ["psycopg2", "psycopg", "pg8000", "asyncpg"])
def test_a_wrong_password_is_one_line_without_it(pooler, name, capsys):
    url = pooler().url.set(drivername=f"postgresql+{name}", password=SECRET)
    assert main(["doctor", url.render_as_string(hide_password=False)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "check user and password" in err
    assert "s3cret" not in err


def test_a_database_that_is_not_there_is_one_line(pg_url, capsys):
    url = pg_url("psycopg2").set(database="nowhere")
    assert main(["doctor", url.render_as_string(hide_password=False)]) == 2
    assert "check the database's name" in capsys.readouterr().err


def test_an_application_without_its_server_is_examined_all_the_same(
    app, refusing, capsys
):
    url = refusing.url("psycopg2").render_as_string(hide_password=False)
    name = app(APP.replace("{url!r}", repr(url)))
    assert main(["doctor", f"{name}:engine", "--json"]) == 2
    out, err = capsys.readouterr()
    assert "check host and port" in err
    states = {one["code"]: one["state"] for one in json.loads(out)["findings"]}
    assert states["PP101"] == "skipped"


def test_without_a_target_it_takes_the_environments(url, capsys, monkeypatch):
    monkeypatch.setenv("POOLPROOF_URL", url)
    assert main(["doctor"]) == 0
    monkeypatch.delenv("POOLPROOF_URL")
    assert main(["doctor"]) == 2
    assert "URL|MODULE:ENGINE" in capsys.readouterr().err


def test_a_code_that_is_none_is_refused(url, capsys):
    assert main(["doctor", url, "--ignore", "slots"]) == 2
    assert "is no code; one is like PP203" in capsys.readouterr().err
    assert main(["doctor", url, "--ignore", "PP999"]) == 2
    assert "there is no check PP999" in capsys.readouterr().err
    assert main(["doctor", url, "--json", "--sarif"]) == 2


def test_the_command_starts_and_ends_in_a_process_of_its_own(url):
    words = [sys.executable, "-m", "poolproof", "doctor", url, "--workers", "50"]
    done = subprocess.run(
        [*words, "--patience", "20"],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr == ""
    assert "PP101" in codes(done.stdout)
