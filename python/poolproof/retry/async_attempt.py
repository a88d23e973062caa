"""Attempts at a transaction for asyncio: awaited in SQLAlchemy's own greenlet."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
)
from sqlalchemy.util import await_only

from poolproof.retry.attempt import Attempt, ConnectionAttempt
from poolproof.retry.session_attempt import SessionAttempt

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Connection

__all__ = ["awaiting", "begin_on", "pause"]


def begin_on(bind: object, isolation_level: str | None) -> Callable[[], Attempt] | None:
    """Say how an attempt is made.

    Args:
        bind: What `run_transaction_async` was given.
        isolation_level: For the transaction; None is the engine's.

    Returns:
        A function that makes an attempt; None when *bind* is nothing async.
    """
    if isinstance(bind, AsyncEngine):
        engine = bind

        def given(connection: Connection) -> AsyncConnection:
            return AsyncConnection(engine, connection)

        return lambda: ConnectionAttempt(engine.sync_engine, isolation_level, given)
    if isinstance(bind, (async_sessionmaker, async_scoped_session)):
        factory = bind
        stays = isinstance(bind, async_scoped_session)

        def begin() -> Attempt:
            session: AsyncSession = factory()
            return SessionAttempt(
                session, session.sync_session, isolation_level, stays=stays
            )

        return begin
    return None


def awaiting(fn: Callable[[Any], Any], unit: str) -> Callable[[Any], Any]:
    """Make of a coroutine function one that can be called in SQLAlchemy's greenlet.

    Args:
        fn: The unit of work.
        unit: Its name.
    """

    def awaited(given: Any) -> Any:
        coroutine = fn(given)
        if inspect.isasyncgen(coroutine) or inspect.isgenerator(coroutine):
            return coroutine  # refused as any generator is
        if not inspect.isawaitable(coroutine):
            msg = (
                f"{unit} is no coroutine function: give it to run_transaction, with an "
                "engine that is not async"
            )
            raise TypeError(msg)
        return await_only(coroutine)

    return awaited


def pause(seconds: float) -> None:
    """Let other tasks run for so long.

    Args:
        seconds: 0 or more.
    """
    await_only(asyncio.sleep(seconds))
