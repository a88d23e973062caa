"""``poolproof lease``, as a person runs it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from poolproof import Lease, Pool
from poolproof.cli.main import main


@pytest.fixture
def engine(pg_url):
    engine = create_engine(pg_url("psycopg2"), poolclass=Pool)
    yield engine
    engine.dispose()


@pytest.fixture
def name():
    return f"lease {uuid.uuid4()} of a command"


@pytest.fixture
def url(pg_url):
    return pg_url("psycopg2").render_as_string(hide_password=False)


def test_list_shows_holder_fence_age_and_time_left(engine, name, url, capsys):
    with Lease(engine, name, ttl=600, application="nightly") as lease:
        assert main(["lease", "list", "--url", url]) == 0
        head, *lines = capsys.readouterr().out.splitlines()
        assert head.split()[:4] == ["name", "state", "holder", "fence"]
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        assert " held " in line
        assert "nightly)" in line
        assert f" {lease.fence} " in line
        assert "min" in line
    assert main(["lease", "list", "--url", url, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    (row,) = [row for row in rows if row["name"] == name]
    assert row.pop("name") == name
    assert (row.pop("state"), row.pop("fence")) == ("free", lease.fence)
    assert set(row.values()) == {None}


def test_release_takes_it_from_its_holder(engine, name, url, capsys):
    lease = Lease(engine, name, ttl=1).acquire()
    assert main(["lease", "release", name, "--url", url]) == 0
    assert f"with fence {lease.fence}" in capsys.readouterr().out
    assert lease.lost.wait(20)
    lease.release()
    assert main(["lease", "release", name, "--url", url]) == 1
    assert "nobody holds" in capsys.readouterr().err


def test_init_creates_the_table_that_list_misses(url, observer, capsys):
    table = "leases_of_the_command"
    assert main(["lease", "list", "--url", url, "--table", table]) == 2
    assert "poolproof lease init" in capsys.readouterr().err
    try:
        for _ in range(2):
            assert main(["lease", "init", "--url", url, "--table", table]) == 0
        assert main(["lease", "list", "--url", url, "--table", table]) == 0
    finally:
        observer.rows(f"drop table {table}")


def test_json_says_who_holds_it(engine, name, url, capsys):
    with Lease(engine, name, ttl=600, application="nightly") as lease:
        assert main(["lease", "list", "--url", url, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    (row,) = [row for row in rows if row["name"] == name]
    left = row.pop("left_s")
    assert 500 < left <= 600
    assert 0 <= row.pop("age_s") < 100
    assert 0 <= row.pop("silence_s") < 100
    assert row.pop("thread").startswith("MainThread ")
    assert row == {
        "name": name,
        "state": "held",
        "fence": lease.fence,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "application": "nightly",
    }


def test_a_table_that_is_not_of_leases_is_explained(url, capsys):
    for command in (["list"], ["release", "x"], ["init"]):
        arguments = ["lease", *command, "--url", url, "--table", "pg_class"]
        assert main(arguments) == 2
        assert "exists with other columns: it lacks" in capsys.readouterr().err


def test_an_applications_table_is_told_apart_and_nobody_is_told_to_drop_it(
    url, table, observer, capsys
):
    observer.rows(f"alter table {table} add column name text, add column paid boolean")
    for command in (["list"], ["release", "x"], ["init"]):
        arguments = ["lease", *command, "--url", url, "--table", table]
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert f"the table {table} is no table of leases" in said
        assert "it lacks acquired_at timestamp with time zone, application text" in said
        assert "has n integer, paid boolean besides" in said
        assert "drop" not in said.lower()
    assert observer.rows(f"select * from {table}") == []


def test_a_refused_connection_is_told_without_the_systems_number(capsys):
    url = "postgresql://u@127.0.0.1:1/d"
    assert main(["lease", "list", "--url", url]) == 2
    said = capsys.readouterr().err
    assert "Connection refused" in said
    assert "os error" not in said


def test_a_name_cannot_break_the_table_s_lines(engine, name, url, capsys):
    with Lease(engine, f"{name}\n\x1b[2J", application="a\tb"):
        assert main(["lease", "list", "--url", url]) == 0
        out = capsys.readouterr().out
        (line,) = [one for one in out.splitlines() if one.startswith(name + "\\n")]
        assert line.startswith(name + r"\n\x1b[2J ")
        assert r", a\tb)" in line
        assert main(["lease", "release", f"{name}\n\x1b[2J", "--url", url]) == 0
        assert capsys.readouterr().out.startswith(name + r"\n\x1b[2J was held")


def test_a_lease_that_never_expires_is_shown(engine, observer, name, url, capsys):
    with Lease(engine, name, ttl=600):
        observer.rows(
            "update poolproof_lease set expires_at = 'infinity' where name = %s", name
        )
        assert main(["lease", "list", "--url", url]) == 0
        assert "  ever" in capsys.readouterr().out


def test_without_a_url_it_names_both_ways_to_give_one(capsys, monkeypatch):
    monkeypatch.delenv("POOLPROOF_URL", raising=False)
    assert main(["lease", "list"]) == 2
    assert "Give --url, or set POOLPROOF_URL" in capsys.readouterr().err


def test_the_short_url_of_libpq_will_do(url, capsys):
    short = url.replace("postgresql+psycopg2://", "postgres://")
    assert short != url
    assert main(["lease", "init", "--url", short]) == 0
    assert main(["lease", "list", "--url", short]) == 0


def test_help_cuts_no_sentence(capsys):
    assert main(["lease", "--help"]) == 0
    _, _, listed = capsys.readouterr().out.partition("Commands:")
    assert "release" in listed
    assert "..." not in listed


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s3cret", "no database URL"),
        ("mysql://u:s3cret@h/d", "PostgreSQL"),
        ("postgresql://u:s3cret@127.0.0.1:1/d", "127.0.0.1:1"),
    ],
)
def test_a_wrong_url_is_one_sentence_without_its_password(url, says, capsys):
    assert main(["lease", "list", "--url", url]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert "s3cret" not in error
    assert error.count("\n") == 1


def test_release_that_fails_is_not_taken_for_a_free_lease(
    name, url, capsys, monkeypatch
):
    def fail(*_):
        raise RuntimeError("can't start new thread: s3cr3t")

    monkeypatch.setattr("poolproof.leases.table.LeaseTable.free", fail)
    assert main(["lease", "release", name, "--url", url]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "RuntimeError" in err
    assert "s3cr3t" not in err


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_full_disk_is_one_sentence(url, options, capsys):
    assert main(["lease", "init", "--url", url]) == 0
    command = [sys.executable, "-m", "poolproof", "lease", "list", "--url", url]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*command, *options],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=200,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == ["poolproof: No space left on device"]


@pytest.mark.parametrize("tail", ["@s3cr3t@h/d", "@s3cr3t/s3cr3t@h/d", "@s3cr3t?x@h"])
@pytest.mark.parametrize(
    "command", [("lease", "list"), ("drill", "--incident=terminate")]
)
def test_tail_of_a_password_is_not_shown_as_a_host(command, tail, capsys):
    assert main([*command, "--url", f"postgresql://u:p{tail}"]) == 2
    out, err = capsys.readouterr()
    assert "s3cr3t" not in out + err
    assert "%40" in err or "has no =" in err
