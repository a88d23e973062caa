"""A named, time-limited right that one process at a time holds, kept in a table."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from poolproof.control.server import finish, readying
from poolproof.leases.base import RELEASE_S, LeaseBase
from poolproof.leases.blocks import PlainBlock

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session
    from typing_extensions import Self

__all__ = ["Lease"]


class Lease(PlainBlock, LeaseBase):
    """A lease: acquire it, or use it in a `with` block.

    Example:
        >>> with Lease(engine, "nightly-cycle", ttl=1800) as lease:  # doctest: +SKIP
        ...     for batch in batches:
        ...         lease.check()
        ...         with engine.begin() as connection:
        ...             lease.guard(connection)
        ...             write(connection, batch)

    Attributes:
        name: Its name.
        ttl: How long it lasts after each renewal, in seconds.
        lost: Set when it was lost, soon after `check` would say so.
    """

    _event = threading.Event
    _lost: tuple[int, threading.Event]

    @property
    def lost(self) -> threading.Event:
        """Set when it was lost, soon after `check` would say so."""
        pid, event = self._lost
        if pid != os.getpid():
            # The notifier of the parent may have held its lock at the fork.
            was_set, event = event.is_set(), threading.Event()
            if was_set:
                event.set()
            self._lost = (os.getpid(), event)
        return event

    @lost.setter
    def lost(self, event: threading.Event) -> None:
        self._lost = (os.getpid(), event)

    def acquire(self) -> Self:
        """Acquire it, waiting up to `timeout` while another holder has it.

        Returns:
            The lease itself, held.

        Raises:
            LeaseTimeout: Another holder had it all the time; the error says who.
            LeaseError: This object holds it already.
            ControlError: The server cannot be asked, or the table is not as it must
                be.
            ArgumentError: It cannot be worked out how to reach the server.
        """
        for pause, _ in readying(self._timeout):
            time.sleep(pause)
        with self._asking() as native:
            finish(native.wait)
        return self

    def release(self) -> None:
        """Give it back. Does nothing when it is not held, or in a child of a fork.

        Waits for the server for 2 s at most; what it has not heard by then, it is told
        later, or the lease expires.
        """
        native = self._leave()
        if native is not None:
            finish(native.wait_over, RELEASE_S)

    def __enter__(self) -> Self:
        """Acquire it."""
        return self.acquire()

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        """Give it back.

        Raises:
            LeaseLost: It was lost, and the block ended without an error of its own.
        """
        loss = self._loss()
        self.release()
        if loss is not None and kind is None:
            raise loss

    def guard(self, connection: Connection | Session) -> None:
        """Bind a transaction to the lease: it commits under it, or not at all.

        Checks name, holder and fence on the server, inside the caller's transaction,
        and locks the row until that ends. Nobody takes the lease over meanwhile, so a
        holder that was paused cannot write after one that came later. Call it first
        in the transaction.

        Args:
            connection: A connection or session of the same database. For the
                asyncio ones: `AsyncLease`, or
                ``await connection.run_sync(lease.guard)``.

        Raises:
            LeaseLost: It was lost, or the server has another holder for it.
            LeaseForked: The parent of this process has it.
            LeaseError: It is not held, or the connection is in autocommit mode, where
                the lock would not last.
        """
        self._guard(connection)

    def _say_lost(self, on_lost: Callable[[Self], object] | None) -> None:
        self.lost.set()
        if on_lost is not None:
            on_lost(self)
