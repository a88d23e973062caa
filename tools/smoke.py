"""Try an installed poolproof: what a user's first minutes need, without a server.

    python -I smoke.py VERSION

Runs in an environment that holds the wheel and what it requires, nothing else, and
may write a file into the current directory.
"""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import os
import socket
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import sqlalchemy
from sqlalchemy import exc, text

import poolproof


def same_version(expected: str) -> None:
    """The package, its metadata and Cargo.toml say the same version."""
    versions = {poolproof.__version__, importlib.metadata.version("poolproof")}
    assert versions == {expected}, versions


def installed_not_the_checkout() -> None:
    """What is tried is the installed wheel."""
    file = Path(str(poolproof.__file__))
    assert file.is_relative_to(sys.prefix), file


def needs_sqlalchemy_alone() -> None:
    """No other package is required without an extra."""
    required = importlib.metadata.requires("poolproof") or []
    plain = [name for name in required if "extra ==" not in name]
    assert {name.lower()[:10] for name in plain} == {"sqlalchemy"}, plain


def brings_its_licences_and_types() -> None:
    """The texts that its licences ask for are there, and what a type checker reads."""
    files = {file.name for file in importlib.metadata.files("poolproof") or []}
    wanted = {"LICENSE", "LICENSE-APACHE", "LICENSE-MIT", "py.typed", "_native.pyi"}
    assert files >= wanted, wanted - files
    assert importlib.resources.files("poolproof").joinpath("py.typed").is_file()


def driver_says_what_it_met() -> None:
    """The native driver is found by its name, and a server that is away is said."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        said = failure_to_connect(nobody, "disable")
    assert "Connection refused" in said, said


def driver_begins_tls() -> None:
    """OpenSSL is inside, and asked: what is no handshake it calls so."""

    def answer(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(8)
            peer.sendall(b"S")
            peer.recv(1)
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer, args=(listener,), daemon=True).start()
        said = failure_to_connect(listener, "require")
    assert "ssl" in said.lower(), said


def failure_to_connect(server: socket.socket, sslmode: str) -> str:
    """Return what the native driver says of a server that is none."""
    port = server.getsockname()[1]
    url = f"postgresql+poolproof://nobody@127.0.0.1:{port}/x?sslmode={sslmode}"
    engine = sqlalchemy.create_engine(url)
    assert type(engine.pool) is poolproof.Pool, type(engine.pool)
    try:
        engine.connect()
    except exc.OperationalError as error:
        return str(error.orig)
    finally:
        engine.dispose()
    message = "it connected to nobody"
    raise AssertionError(message)


def command_answers() -> None:
    """The command says its version, and what else it needs, in one line."""
    command = str(Path(sys.prefix) / "bin" / "poolproof")

    def run(word: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [command, word], capture_output=True, text=True, timeout=60, check=False
        )

    assert run("--version").stdout.split()[-1] == poolproof.__version__
    without = run("doctor")
    assert without.returncode == 2, without
    assert len(without.stderr.splitlines()) == 1, without
    assert "pip install" in without.stderr, without


def engine_works(pool_class: type[sqlalchemy.Pool] | None, url: str) -> None:
    """An engine queries through our pool, in this process and in a forked child."""
    options = {} if pool_class is None else {"poolclass": pool_class}
    engine = sqlalchemy.create_engine(url, **options)
    assert type(engine.pool) is poolproof.Pool, type(engine.pool)

    def query() -> int:
        with engine.connect() as connection:
            return int(connection.scalar(text("select 41 + 1")))

    assert query() == 42
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if query() == 42 else 1
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0, "the child's query failed"
    assert query() == 42
    engine.dispose()


def main(expected: str) -> None:
    """Run every try; an assertion that fails ends it."""
    same_version(expected)
    installed_not_the_checkout()
    needs_sqlalchemy_alone()
    brings_its_licences_and_types()
    # The keeper is a thread, and forks beside it are what is tried.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded")
    engine_works(poolproof.Pool, "sqlite://")
    engine_works(None, "sqlite:///smoke.db?plugin=poolproof")
    driver_says_what_it_met()
    driver_begins_tls()
    command_answers()
    python = ".".join(map(str, sys.version_info[:3]))
    print(f"poolproof {expected} works on Python {python}, {sqlalchemy.__version__=}")


if __name__ == "__main__":
    main(sys.argv[1])
