"""The heartbeat for asyncio: starting and stopping it lets the loop go on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from poolproof.control.asyncio import answered
from poolproof.leases.blocks import AsyncBlock
from poolproof.leases.heartbeat import STOP_S, HeartbeatBase

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["AsyncHeartbeat"]


class AsyncHeartbeat(AsyncBlock, HeartbeatBase):
    """A heartbeat for asyncio: start it, or use it in an `async with` block.

    Example:
        >>> query = "UPDATE worker SET last_seen = now() WHERE id = $1"
        >>> async with AsyncHeartbeat(engine, query, [7]):  # doctest: +SKIP
        ...     await work()

    Its parameters are those of `Heartbeat`; ``bind`` may be an `AsyncEngine`.
    """

    async def start(self) -> Self:
        """Start it, and wait for its first beat.

        A server that cannot be reached is tried again and again. While the system has
        no thread to give, this waits for one, and the log says so. Whoever is cancelled
        meanwhile has not started it.

        Raises:
            ControlError: The server refuses the statement, or the parameters.
            ArgumentError: It cannot be worked out how to reach the server.
        """
        await self.stop()
        for pause in self._readying():
            await asyncio.sleep(pause)
        with self._starting() as native:
            await answered(native.announce, native.wait)
        return self

    async def stop(self) -> None:
        """End it. Does nothing when it does not run, or in a child of a fork."""
        with self._ending() as native:
            if native is not None:
                await answered(native.announce_over, native.wait_over, STOP_S)

    async def __aenter__(self) -> Self:
        """Start it."""
        return await self.start()

    async def __aexit__(self, *_error: object) -> None:
        """End it."""
        await self.stop()
