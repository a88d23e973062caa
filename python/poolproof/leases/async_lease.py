"""The lease for asyncio: whoever waits lets the loop go on, and needs no thread."""

from __future__ import annotations

import asyncio
import inspect
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import exc

from poolproof.control.asyncio import answered, post
from poolproof.control.server import readying
from poolproof.leases.base import RELEASE_S, LeaseBase
from poolproof.leases.blocks import AsyncBlock
from poolproof.leases.log import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import (
        AsyncConnection,
        AsyncSession,
        async_scoped_session,
    )
    from typing_extensions import Self

__all__ = ["AsyncLease"]

# The loop itself keeps its tasks weakly.
_telling: set[asyncio.Task[None]] = set()


class AsyncLease(AsyncBlock, LeaseBase):
    """A lease for asyncio: acquire it, or use it in an `async with` block.

    Example:
        >>> async with AsyncLease(engine, "nightly-cycle") as lease:  # doctest: +SKIP
        ...     async for batch in batches:
        ...         lease.check()
        ...         async with engine.begin() as connection:
        ...             await lease.guard(connection)
        ...             await write(connection, batch)

    Its parameters are those of `Lease`; ``bind`` may be an `AsyncEngine`, and
    ``on_lost`` a coroutine function. What is not awaited never blocks.

    Attributes:
        name: Its name.
        ttl: How long it lasts after each renewal, in seconds.
        lost: Set when it was lost, soon after `check` would say so, in the loop that
            acquired it.
    """

    lost: asyncio.Event
    _event = asyncio.Event
    _takes_coroutines = True
    _loop: asyncio.AbstractEventLoop

    async def acquire(self) -> Self:
        """Acquire it, waiting up to `timeout` while another holder has it.

        Whoever is cancelled gives the wait up; what the server may have granted
        meanwhile is given back.

        Returns:
            The lease itself, held.

        Raises:
            LeaseTimeout: Another holder had it all the time; the error says who.
            LeaseError: This object holds it already.
            ControlError: The server cannot be asked, or the table is not as it must
                be.
            ArgumentError: It cannot be worked out how to reach the server.
        """
        loop = asyncio.get_running_loop()
        for pause, _ in readying(self._timeout):
            await asyncio.sleep(pause)
        with self._asking() as native:
            self._loop = loop
            await answered(native.announce, native.wait)
        return self

    async def release(self) -> None:
        """Give it back. Does nothing when it is not held, or in a child of a fork.

        Waits for the server for 2 s at most; what it has not heard by then, it is told
        later, or the lease expires. It is given back also when the task is cancelled.
        """
        native = self._leave()
        if native is not None:
            await answered(native.announce_over, native.wait_over, RELEASE_S)

    async def __aenter__(self) -> Self:
        """Acquire it."""
        return await self.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, *_error: object
    ) -> None:
        """Give it back.

        Raises:
            LeaseLost: It was lost, and the block ended without an error of its own.
        """
        loss = self._loss()
        await self.release()
        if loss is not None and kind is None:
            raise loss

    async def guard(
        self, connection: AsyncConnection | AsyncSession | async_scoped_session[Any]
    ) -> None:
        """Bind a transaction to the lease: it commits under it, or not at all.

        The same as `Lease.guard`.

        Args:
            connection: An asyncio connection or session of the same database.

        Raises:
            LeaseLost: It was lost, or the server has another holder for it.
            LeaseForked: The parent of this process has it.
            LeaseError: It is not held, or the connection is in autocommit mode, where
                the lock would not last.
            ArgumentError: It is no asyncio connection, and no such session.
        """
        self.check()
        inner: Any = connection
        if hasattr(inner, "registry"):  # of an async_scoped_session
            inner = inner.registry()
        if not hasattr(inner, "run_sync"):
            raise exc.ArgumentError(
                "AsyncLease.guard needs an AsyncConnection or an AsyncSession; this is "
                f"{type(connection)}"
            )
        await inner.run_sync(self._guard)

    def _say_lost(self, on_lost: Callable[[Self], Any] | None) -> None:
        if not post(self._loop, partial(self._hear, on_lost)):
            log.warning(
                "Lease %r was lost, and nobody is told: its loop has closed", self.name
            )

    def _hear(self, on_lost: Callable[[Self], Any] | None) -> None:
        self.lost.set()
        if on_lost is not None:
            task = self._loop.create_task(self._call(on_lost))
            _telling.add(task)
            task.add_done_callback(_telling.discard)

    async def _call(self, on_lost: Callable[[Self], Any]) -> None:
        try:
            called = on_lost(self)
            if inspect.isawaitable(called):
                await called
        except Exception:  # noqa: BLE001 - of on_lost, of any class
            log.exception("on_lost of a lease failed")

    def _set_lost(self) -> None:
        post(self._loop, self.lost.set)
