"""A password in a URL that stands in a wrong place of the command line is not shown."""

from __future__ import annotations

import pytest

from poolproof.cli.main import main

URL = "postgresql://app:s3cret@db/app"


@pytest.mark.parametrize(
    "words",
    [
        f"metrics {URL}",
        f"doctor shop:engine {URL}",
        f"doctor --workers {URL} shop:engine",
        f"doctor --workers={URL} shop:engine",
        f"doctor --ignore {URL} shop:engine",
        f"drill {URL}",
        f"drill --incident {URL}",
        f"drill --report {URL} --url {URL}",
        f"{URL}",
        f"lease list {URL}",
        f"watch {URL} --every {URL}",
        f"watch --sort {URL}",
        f"watch --directory {URL}",
        f"metrics --listen {URL}",
        f"metrics --directory {URL}",
        "metrics app:s3cret@db/app",
        "metrics postgresql:/app:s3cret@db",
        "metrics postgresql//app:s3cret",
        "metrics host=db\\password=s3cret",
        "metrics s3cret\x1b@db/é",
    ],
)
def test_what_may_be_a_url_is_in_no_message_about_arguments(words, capsys):
    assert main(words.split(" ")) == 2
    out, err = capsys.readouterr()
    assert "s3cret" not in out + err
    assert err.strip()


def test_what_is_none_is_named(capsys):
    assert main(["metrics", "everything"]) == 2
    assert "everything" in capsys.readouterr().err
