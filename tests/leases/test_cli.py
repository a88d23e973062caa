"""``poolproof lease``, as a person runs it."""

from __future__ import annotations

import json

import pytest

from poolproof import Lease
from poolproof.cli import main


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
    assert (row["state"], row["fence"]) == ("free", lease.fence)


def test_release_takes_it_from_its_holder(engine, name, url, capsys):
    lease = Lease(engine, name, ttl=1).acquire()
    assert main(["lease", "release", name, "--url", url]) == 0
    assert f"with fence {lease.fence}" in capsys.readouterr().out
    assert lease.lost.wait(20)
    lease.release()
    assert main(["lease", "release", name, "--url", url]) == 2
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
