"""What is to be seen of an engine and its pool, line by line, for people."""

from __future__ import annotations

import inspect
import time
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
import sqlalchemy.pool

from poolproof.doctor.engines import is_misread
from poolproof.pool.knobs import KNOBS
from poolproof.pool.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Engine

__all__ = ["ask", "describe"]

# Not in their own words: they may hold a password.
_SECRET = frozenset({"control_dsn"})


def describe(engine: Engine) -> Iterator[str]:
    """Say what an engine's pool is, does, and was told.

    Args:
        engine: A sync engine.

    Yields:
        Lines.
    """
    pool = engine.pool
    kind = type(pool)
    yield f"pool: {kind.__module__.removesuffix('.pool.pool')}.{kind.__qualname__}"
    if not isinstance(pool, Pool):
        yield "not poolproof.Pool: this engine is guarded, but does not survive forks"
        yield pool.status()
        return
    yield f"called: {pool.name()}"
    stats = pool.stats()
    yield f"idle {stats.idle}, in use {stats.in_use}, waiting {stats.waiting}"
    yield f"checkouts {stats.checkouts_total}, waits for a slot {stats.waited_total}"
    gone = ", ".join(f"{why} {count}" for why, count in stats.discarded.items())
    yield f"discarded: {gone or 'none'}"
    breaker = "open" if stats.breaker_open else "closed"
    yield f"connect failures in a row: {stats.connect_failures}, breaker {breaker}"
    for holder in pool.holders():
        yield f"held by {holder}"
    yield "settings in effect, and where from:"
    for line in _settings(pool):
        yield f"  {line}"


def _settings(pool: Pool) -> Iterator[str]:
    given, defaults = pool.given(), _defaults()
    for name, own in KNOBS.items():
        value = given[own]
        where = pool.origins.get(name)
        if where is None:
            same = _shown(value) == _shown(defaults[own])
            where = "default" if same else "create_engine"
        words = "***" if name in _SECRET and value else _shown(value)
        yield f"{name} = {words}  # {where}"


def _defaults() -> dict[str, Any]:
    found = {}
    for cls in (sqlalchemy.pool.Pool, Pool):
        for name, parameter in inspect.signature(cls.__init__).parameters.items():
            found[name] = parameter.default
    return {**found, "reset_on_return": sqlalchemy.pool.reset_rollback}


def _shown(value: Any) -> str:
    """Write a value as it may be written in the environment."""
    if isinstance(value, sqlalchemy.pool.base.ResetStyle):
        return value.name.removeprefix("reset_")
    if isinstance(value, tuple):
        return ",".join(map(_shown, value))
    if isinstance(value, float):
        return f"{value:g}"
    words = str(value)
    return words.lower() if value is None or isinstance(value, bool) else words


def ask(engine: Engine) -> tuple[str, bool]:
    """Try one connection of an engine.

    Args:
        engine: A sync engine.

    Returns:
        What came of it, in a line, and whether all is well.
    """
    if engine.dialect.is_async:
        return "not asked: an async engine", True
    began = time.monotonic()
    try:
        with engine.connect() as connection:
            version = connection.dialect.server_version_info
            pid = (
                connection.scalar(sa.text("select pg_backend_pid()"))
                if engine.dialect.name == "postgresql"
                else None
            )
    except Exception as error:  # noqa: BLE001 - of a driver, of any class
        words = str(error).partition("\n(Background on this error")[0].rstrip()
        if is_misread(engine):
            words = ""  # a driver quotes the host
        return f"NO CONNECTION: {words or type(error).__name__}", False
    number = ".".join(map(str, version or ()))
    session = "" if pid is None else f", backend pid {pid}"
    took = (time.monotonic() - began) * 1000
    return f"answered in {took:.0f} ms: {engine.dialect.name} {number}{session}", True
