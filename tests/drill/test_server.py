"""The embedded PostgreSQL: it comes up, asks for a password, and goes away."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

import poolproof.drill.server as module
from poolproof.drill.errors import SetupError
from poolproof.drill.server import DEBIAN, PACKAGE, EmbeddedServer, installation

GUESS = "not-the-password"


def test_it_answers_on_loopback_and_on_its_unix_socket(server):
    over_tcp = server.url.set(drivername="postgresql+psycopg2")
    over_unix = over_tcp.set(host=None, query={"host": str(server.directory)})
    for url in (over_tcp, over_unix):
        engine = create_engine(url, poolclass=NullPool)
        with engine.connect() as connection:
            assert connection.execute(text("SELECT 1")).scalar_one() == 1


def test_nobody_gets_in_without_the_password(server):
    url = server.url.set(drivername="postgresql+psycopg2", password=GUESS)
    with pytest.raises(OperationalError, match="password authentication failed"):
        create_engine(url, poolclass=NullPool).connect()


def test_the_password_is_not_shown(server):
    assert server.url.password not in repr(server.url) + repr(server)


def test_its_directory_is_closed_to_others(server):
    assert (server.directory / "data").stat().st_mode & 0o077 == 0


def test_stop_removes_its_directory_and_may_be_called_twice():
    server = EmbeddedServer().start()
    directory = server.directory
    assert directory.exists()
    server.stop()
    assert not directory.exists()
    server.stop()
    with pytest.raises(SetupError, match="not started"):
        _ = server.url


def test_it_is_shut_down_and_started_again_on_its_port_with_its_data():
    with EmbeddedServer(synchronous_commit="on") as server:
        url = server.url.set(drivername="postgresql+psycopg2")
        engine = create_engine(url, poolclass=NullPool)
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE kept (n integer)"))
        for mode in ("fast", "immediate"):
            server.shut_down(mode)
            with pytest.raises(OperationalError, match="refused"):
                engine.connect()
            server.start_again()
            assert server.url.port == url.port
            with engine.connect() as connection:
                assert connection.execute(text("SELECT n FROM kept")).all() == []
                shown = connection.execute(text("SHOW synchronous_commit"))
                assert shown.scalar() == "on"


def test_two_servers_do_not_disturb_each_other(server):
    with EmbeddedServer() as other:
        assert other.url.port != server.url.port
        assert other.directory != server.directory


def test_it_goes_when_its_owner_is_gone_without_a_word():
    owner = subprocess.run(
        [
            sys.executable,
            "-c",
            (
                "import os\n"
                "from poolproof.drill.server import EmbeddedServer\n"
                "server = EmbeddedServer().start()\n"
                "print(server.directory, flush=True)\n"
                "os._exit(0)\n"
            ),
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    directory = Path(owner.stdout.strip())
    deadline = time.monotonic() + 30
    while directory.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not directory.exists()


def keep(home: Path, temporary: Path) -> subprocess.Popen[str]:
    """Run the supervisor by itself, as `EmbeddedServer` does; it has its order."""
    supervisor = subprocess.Popen(
        [sys.executable, "-I", str(Path(module.__file__).with_name("supervisor.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    supervisor.stdin.write(json.dumps({"home": str(home)}) + "\n")
    supervisor.stdin.flush()
    return supervisor


def test_a_server_that_cannot_start_says_why(workplace):
    """Programs that are not PostgreSQL's: the supervisor passes their words on."""
    home = workplace / "pginstall1"
    (home / "bin").mkdir(parents=True)
    for name in ("initdb", "postgres"):
        (home / "bin" / name).write_text("#!/bin/sh\necho no room left >&2; exit 1\n")
        (home / "bin" / name).chmod(0o755)
    supervisor = keep(home, workplace)
    out, _ = supervisor.communicate(timeout=200)
    assert json.loads(out) == {"error": "initdb failed: no room left"}
    assert supervisor.returncode == 1
    assert not list(workplace.glob("poolproof-drill-*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's server has another user")
@pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None, reason="the package is not installed"
)
def test_root_need_not_open_its_own_directories_to_the_server(tmp_path):
    tmp_path.chmod(0o700)
    installed = installation()
    package = installed.parent
    home = tmp_path / package.name / installed.name
    home.mkdir(parents=True)
    for part in installed.iterdir():
        (home / part.name).symlink_to(part)
    libraries = f"{package.name}.libs"
    (tmp_path / libraries).symlink_to(package.with_name(libraries))
    supervisor = keep(home, tmp_path)
    facts = json.loads(supervisor.stdout.readline())
    assert Path(facts["directory"]).parent != tmp_path
    supervisor.communicate(timeout=200)
    assert tmp_path.stat().st_mode & 0o777 == 0o700
    assert not Path(facts["directory"]).exists()


PACKAGED = importlib.util.find_spec(PACKAGE) is not None


@pytest.mark.skipif(not PACKAGED, reason="the package is not installed")
def test_the_newest_postgresql_of_the_package_is_taken():
    home = installation()
    assert home is not None
    versions = {
        path.name: int(path.name.removeprefix("pginstall") or 0)
        for path in home.parent.glob("pginstall*")
    }
    assert versions[home.name] == max(versions.values())


@pytest.fixture
def without_package(monkeypatch):
    """Hide the package, as on a Python for which it has no wheel."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == PACKAGE else find(name),
    )


@pytest.mark.skipif(not list(DEBIAN.glob("*/bin/initdb")), reason="no such PostgreSQL")
def test_without_the_package_the_machines_postgresql_is_started(
    without_package, monkeypatch, tmp_path
):
    monkeypatch.setenv("PATH", str(tmp_path))
    home = installation()
    assert home.parent == DEBIAN
    with EmbeddedServer() as server:
        assert server.home == home
        url = server.url.set(drivername="postgresql+psycopg2")
        with create_engine(url, poolclass=NullPool).connect() as connection:
            version = connection.scalar(text("SHOW server_version"))
    assert version.split(".")[0] == home.name


def test_a_pg_config_of_the_path_is_asked_first(without_package, monkeypatch, tmp_path):
    program = tmp_path / "pg_config"
    monkeypatch.setenv("PATH", str(tmp_path))
    program.write_text(f"#!/bin/sh\necho {tmp_path}/own/bin\n")
    program.chmod(0o755)
    assert installation() != tmp_path / "own"  # a client's: it has no server
    (tmp_path / "own" / "bin").mkdir(parents=True)
    for name in ("postgres", "initdb"):
        (tmp_path / "own" / "bin" / name).touch()
    assert installation() == tmp_path / "own"
    program.write_text("#!/bin/sh\nexit 1\n")
    assert installation() != tmp_path / "own"
