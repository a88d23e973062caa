"""``poolproof metrics``: as a program, beside an application."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from metrics.names import EVERY
from poolproof.cli.main import main


def program(*words, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "poolproof", "metrics", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def test_it_serves_until_it_is_stopped(tmp_path):
    # It may be there before the first process that makes the directory.
    words = ("--listen", "127.0.0.1:0", "--dir", str(tmp_path / "metrics"))
    with program(*words) as running:
        try:
            line = running.stderr.readline()
            address = re.fullmatch(r"(http://127\.0\.0\.1:\d+/metrics)\n", line)[1]
            with urllib.request.urlopen(address, timeout=60) as answer:  # noqa: S310
                names = {one.name for one in parse(answer.read().decode())}
            assert names == {name.removesuffix("_total") for name in EVERY}
        finally:
            running.send_signal(signal.SIGINT)
        _out, noise = running.communicate(timeout=60)
    assert running.returncode == 130
    assert noise == "poolproof: stopped by Ctrl-C\n"


def test_it_prints_them_once(tmp_path, capsys):
    assert main(["metrics", "--dir", str(tmp_path)]) == 0
    names = {one.name for one in parse(capsys.readouterr().out)}
    assert names == {name.removesuffix("_total") for name in EVERY}


def one_line(capsys):
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    assert line.startswith("poolproof: ")
    assert "Traceback" not in line
    return line


def test_no_directory_is_one_line(capsys):
    assert main(["metrics"]) == 2
    assert "set POOLPROOF_METRICS_DIR" in one_line(capsys)


def test_a_directory_that_is_none_is_one_line(capsys, tmp_path):
    assert main(["metrics", "--dir", str(tmp_path / "none")]) == 2
    assert "is no directory" in one_line(capsys)


def test_a_directory_that_cannot_be_made_is_one_line(capsys, tmp_path):
    (tmp_path / "file").touch()
    for name in ("file", "file/below"):
        where = str(tmp_path / name)
        assert main(["metrics", "--dir", where, "--listen", "127.0.0.1:0"]) == 2
        assert where in one_line(capsys)


def test_a_port_that_is_taken_is_one_line(capsys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main(["metrics", "--dir", str(tmp_path), "--listen", where]) == 2
    assert f"cannot listen on {where}: Address already in use" in one_line(capsys)


@pytest.mark.parametrize("wrong", ["nowhere", "127.0.0.1:", ":99999", "a:b"])
def test_an_address_that_is_none_is_refused(capsys, tmp_path, wrong):
    assert main(["metrics", "--dir", str(tmp_path), "--listen", wrong]) == 2
    assert "127.0.0.1:9898" in capsys.readouterr().err
