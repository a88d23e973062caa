"""Engines, loops, names and programs for the tests of leases."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import textwrap
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

import poolproof

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

_TESTS = Path(__file__).parent.parent
_numbers = itertools.count()


@pytest.fixture
def make_engine() -> Iterator[Callable[..., Engine]]:
    """Make engines over poolproof.Pool, and dispose of them in the end."""
    made: list[Engine] = []
    owner = os.getpid()

    def make(url: Any, **parameters: Any) -> Engine:
        parameters.setdefault("poolclass", poolproof.Pool)
        engine = create_engine(url, **parameters)
        made.append(engine)
        return engine

    yield make
    if os.getpid() == owner:
        for engine in made:
            engine.dispose()


@pytest.fixture
def engine(pg_url, make_engine) -> Engine:
    """Make an engine of psycopg2, over TCP."""
    return make_engine(pg_url("psycopg2"))


@pytest.fixture(params=[AsyncAdaptedQueuePool, poolproof.AsyncPool])
def play(request, pg_url) -> Callable[..., Any]:
    """Run a coroutine function with an async engine, and dispose of the engine.

    The loop is in its debug mode: it refuses what another thread does to it.
    """

    def run(
        story: Callable[[Any], Any], driver: str = "asyncpg", **options: Any
    ) -> Any:
        async def whole() -> Any:
            url = pg_url(driver)
            if driver == "asyncpg":
                url = url.set(query={})
            options.setdefault("poolclass", request.param)
            engine = create_async_engine(url, **options)
            try:
                return await story(engine)
            finally:
                await engine.dispose()

        return asyncio.run(whole(), debug=True)

    return run


@pytest.fixture
def until() -> Callable[..., Any]:
    """Return a coroutine function that waits until something is true, or fails."""

    async def wait(what: Callable[[], Any], *, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, "it never came true"
            await asyncio.sleep(0.01)

    return wait


@pytest.fixture
def name() -> str:
    """Name a lease that no other test uses."""
    return f"lease {os.getpid()} {next(_numbers)} of a test"


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Return a function that waits until something is true, or fails."""

    def wait(what: Callable[[], Any], *, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, "it never came true"
            time.sleep(0.01)

    return wait


@pytest.fixture
def row(observer) -> Callable[[str], dict[str, Any] | None]:
    """Return a function that reads a lease's row from outside."""

    def read(name: str) -> dict[str, Any] | None:
        found = observer.rows(
            "select fence, token, pid, expires_at > clock_timestamp()"
            " from poolproof_lease where name = %s",
            name,
        )
        if not found:
            return None
        return dict(zip(("fence", "token", "pid", "live"), found[0], strict=True))

    return read


class Program:
    """A Python program in a process group of its own.

    Args:
        source: What it runs; common indentation is removed.
        arguments: Its ``sys.argv[1:]``.
    """

    def __init__(self, source: str, *arguments: str) -> None:
        paths = [str(_TESTS), os.environ.get("PYTHONPATH")]
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-c", textwrap.dedent(source), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                "PYTHONFAULTHANDLER": "1",
            },
        )

    def line(self) -> str:
        """Return its next line."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def send(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def wait(self, seconds: float = 100.0) -> int:
        """Wait for its end; return its status."""
        return self.process.wait(seconds)

    def end(self) -> None:
        """End it, if it is still there."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def program() -> Iterator[Callable[..., Program]]:
    """Start programs; they are ended with the test."""
    with ExitStack() as stack:

        def start(source: str, *arguments: str) -> Program:
            started = Program(source, *arguments)
            stack.callback(started.end)
            return started

        yield start
