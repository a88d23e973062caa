"""What is no driver of PostgreSQL's: other databases, and what stands for one."""

from __future__ import annotations

from typing import Any

from poolproof.drivers.base import Driver, number_of

__all__ = ["Mock", "OtherDatabase", "is_mock"]


class OtherDatabase(Driver):
    """A driver of another database, which is never asked anything."""

    __slots__ = ()

    is_of_postgresql = False

    def __init__(self) -> None:
        """There is nothing to say."""
        super().__init__("other", must_ask=False)

    def descriptor(self, connection: Any) -> int | None:
        """Find the descriptor; the MySQL drivers keep a socket in `_sock`.

        Args:
            connection: A DBAPI connection.
        """
        found = number_of(connection)
        return number_of(getattr(connection, "_sock", None)) if found is None else found


class Mock(Driver):
    """What stands for a connection in a test: it has no state, and is asked nothing."""

    __slots__ = ()

    is_of_postgresql = False

    def __init__(self) -> None:
        """There is nothing to say."""
        super().__init__("mock", must_ask=False)

    def descriptor(self, connection: Any) -> int | None:
        """Find none.

        Args:
            connection: A mock.
        """
        del connection
        return None

    def is_closed(self, connection: Any) -> bool:
        """Say no.

        Args:
            connection: A mock.
        """
        del connection
        return False


def is_mock(connection: Any) -> bool:
    """Tell whether something stands for a connection in a test.

    Such a thing has every method of every driver, and what it answers means nothing.

    Args:
        connection: A DBAPI connection, or None.
    """
    return hasattr(connection, "poolproof_asks_for_what_no_driver_has")
