"""The drill's server and its command, for the tests of both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from poolproof.drill.server import EmbeddedServer


def play(url: str, *args: str, **env: str) -> tuple[int, dict[str, Any], str]:
    """Run a drill on a database.

    Args:
        url: The database, password and all.
        args: Options of the command.
        env: Environment variables to change.

    Returns:
        Its exit status, its report, and what it said beside it.
    """
    done = subprocess.run(
        [sys.executable, "-m", "poolproof", "drill", "--json=-", *args],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "POOLPROOF_DRILL_URL": url, **env},
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as running:
        yield running


@pytest.fixture(scope="session")
def url(server) -> str:
    return server.url.render_as_string(hide_password=False)


@pytest.fixture
def tables(server) -> Callable[[], list[str]]:
    """Ask which tables of any drill are in the database."""
    engine = create_engine(
        server.url.set(drivername="postgresql+psycopg2"), poolclass=NullPool
    )

    def ask() -> list[str]:
        with engine.connect() as connection:
            names = connection.execute(text("SELECT tablename FROM pg_tables"))
            return [name for name in names.scalars() if "poolproof" in name]

    return ask


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str


@pytest.fixture
def workplace() -> Iterator[Path]:
    """A temporary directory that PostgreSQL's user may enter; pytest's is root's."""
    with TemporaryDirectory(prefix="drill-test-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture
def poolproof(workplace) -> Callable[..., Done]:
    """Run the command line to its end, with a temporary directory of its own."""

    def run(*args: str, **env: str) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "poolproof", *args],
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
            env=environment(workplace, env),
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


def environment(directory: Path, extra: dict[str, str]) -> dict[str, str]:
    plain = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "TERM")}
    return {**plain, "TMPDIR": str(directory), "TERM": "xterm", **extra}
