"""Connections of asyncio as SQLAlchemy adapts them.

The pool has SQLAlchemy's adapter, whose methods wait in the adapter's greenlet. What is
asked of it here sends nothing and waits for nothing, but for `ask`; so it may be asked
by anybody, the thread of the loop or another.
"""

from __future__ import annotations

from typing import Any

from poolproof.drivers.base import Driver

__all__ = ["ACTIVE", "CANCEL_S", "FAILED", "IDLE", "IN_TRANSACTION", "UNKNOWN"]
__all__ += ["Adapted", "own"]

# libpq's numbers, for all.
IDLE, ACTIVE, IN_TRANSACTION, FAILED, UNKNOWN = range(5)
# How long the server may take to be told that a statement was cancelled, in seconds.
CANCEL_S = 2.0


def own(connection: Any) -> Any:
    """Return the driver's own connection of an adapter; of others, themselves.

    Args:
        connection: SQLAlchemy's adapter, or a connection.
    """
    return getattr(connection, "_connection", connection)


class Adapted(Driver):
    """A driver whose connections are adapted; it comes before the driver's class."""

    __slots__ = ()

    is_at_loop = True

    def descriptor(self, connection: Any) -> int | None:
        """Find the descriptor.

        Args:
            connection: The adapter.
        """
        return super().descriptor(own(connection))

    def told_pid(self, connection: Any) -> int | None:
        """Return the number that stands for the backend, as it was told.

        Args:
            connection: The adapter.
        """
        return super().told_pid(own(connection))

    def setting(self, connection: Any, name: str) -> str | None:
        """Return a setting that the server has reported.

        Args:
            connection: The adapter.
            name: The setting's name.
        """
        return super().setting(own(connection), name)

    def is_closed(self, connection: Any) -> bool:
        """Tell whether a connection is closed, or broken.

        Args:
            connection: The adapter.
        """
        return super().is_closed(own(connection))

    def has_ended(self, connection: Any) -> bool:
        """Tell whether the driver has noticed by itself that the session has ended.

        Args:
            connection: The adapter.
        """
        return super().is_closed(own(connection))
